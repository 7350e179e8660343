"""First octets of protocols that are neither HTTP nor TLS to begin with: they have to pass octet by octet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Words:
    """A conversation in turns, each said once the one before has arrived whole."""

    name: str
    server_first: bool
    turns: tuple[bytes, ...]


def _client(name: str, *turns: bytes) -> Words:
    return Words(name, False, turns)


def _server(name: str, *turns: bytes) -> Words:
    return Words(name, True, turns)


def _hex(text: str) -> bytes:
    return bytes.fromhex(text)


_TLS: Final = _hex("16030100050100000100") + bytes(40)
"""Begins as TLS does: what follows a STARTTLS, not a ClientHello that can be read."""
_DNS: Final = _hex("001d1234010000010000000000000377777707") + b"example" + _hex("036f7267000001") + b"\0\1"

WORDS: Final = (
    _server("SSH", b"SSH-2.0-OpenSSH_9.2\r\n", b"SSH-2.0-OpenSSH_10.0\r\n", bytes(64), bytes(64)),
    _client("SSH, client first", b"SSH-2.0-PuTTY_0.81\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", bytes(64)),
    _server("SMTP", b"220 mail.example.org ESMTP\r\n", b"EHLO client.example.net\r\n", b"250 SIZE\r\n", b"QUIT\r\n"),
    _server("SMTP with STARTTLS", b"220 mail ESMTP\r\n", b"STARTTLS\r\n", b"220 go\r\n", _TLS, _TLS),
    _server("LMTP", b"220 mail LMTP\r\n", b"LHLO client\r\n", b"250 mail\r\n"),
    _server(
        "FTP", b"220 ready\r\n", b"USER anonymous\r\n", b"331 password\r\n", b"PASS a@example.org\r\n", b"230 in\r\n"
    ),
    _server("FTP with AUTH TLS", b"220 ready\r\n", b"AUTH TLS\r\n", b"234 go\r\n", _TLS, _TLS),
    _server("POP3", b"+OK ready\r\n", b"CAPA\r\n", b"+OK\r\nUIDL\r\n.\r\n", b"QUIT\r\n", b"+OK\r\n"),
    _server("IMAP", b"* OK IMAP4rev1 ready\r\n", b"a1 CAPABILITY\r\n", b"* CAPABILITY IMAP4rev1\r\na1 OK\r\n"),
    _server("ManageSieve", b'"IMPLEMENTATION" "x"\r\nOK\r\n', b"STARTTLS\r\n", b"OK\r\n", _TLS),
    _server("NNTP", b"200 news.example.org ready\r\n", b"MODE READER\r\n", b"200 ok\r\n"),
    _server(
        "MySQL",
        _hex("4a0000000a382e302e333600") + bytes(60),
        _hex("200000018da20a00") + bytes(28),
        _hex("0700000200000002000000"),
    ),
    _server(
        "MySQL with TLS",
        _hex("4a0000000a382e302e333600") + bytes(60),
        _hex("2000000185aebf19") + bytes(28) + _TLS,
        _TLS,
    ),
    _server("VNC", b"RFB 003.008\n", b"RFB 003.008\n", b"\x02\x01\x02", b"\x01", bytes(4)),
    _server("telnet", _hex("fffd18fffd20fffd23"), _hex("fffb18fffc20fffc23"), b"login: ", b"user\r\n"),
    _server(
        "IRC, server first",
        b":irc.example.org NOTICE * :*** Looking up\r\n",
        b"NICK a\r\nUSER a 0 * :a\r\n",
        b":irc 001 a\r\n",
    ),
    _client("IRC", b"NICK a\r\nUSER a 0 * :a\r\n", b":irc 001 a :Welcome\r\n", b"PING x\r\n", b"PONG x\r\n"),
    _server("rsync", b"@RSYNCD: 31.0\n", b"@RSYNCD: 31.0\n", b"@RSYNCD: OK\n"),
    _server(
        "Asterisk manager", b"Asterisk Call Manager/7.0.3\r\n", b"Action: Login\r\n\r\n", b"Response: Success\r\n\r\n"
    ),
    _server("MPD", b"OK MPD 0.23.5\n", b"status\n", b"volume: 5\nOK\n"),
    _server(
        "Subversion",
        b"( success ( 2 2 ( ) ( edit-pipeline ) ) ) ",
        b"( 2 ( edit-pipeline ) 25:svn://svn.example.org/x ) ",
    ),
    _server("Git Perforce-like banner", b"\x00\x05ready", b"\x00\x01x", b"\x00"),
    _server("CVS pserver, odd", b"I HATE YOU\n", b"\n"),
    _server("daytime", b"30 NOV 2026 15:00:00 UTC\r\n"),
    _server("quote of the day", b"A quote.\r\n"),
    _server("time", _hex("eae3d2c1")),
    _server("one octet, server first", b"\x00", b"\x00", b"\x01"),
    _client(
        "PostgreSQL",
        _hex("0000000804d2162f"),
        b"N",
        _hex("0000001300030000") + b"user\0postgres\0\0"[:11],
        b"R\0\0\0\x08\0\0\0\0",
    ),
    _client("PostgreSQL with TLS", _hex("0000000804d2162f"), b"S", _TLS, _TLS),
    _client(
        "PostgreSQL, no TLS asked", _hex("0000002000030000") + b"user\0a\0database\0b\0\0\0\0", b"R\0\0\0\x08\0\0\0\0"
    ),
    _client("Redis", b"*1\r\n$4\r\nPING\r\n", b"+PONG\r\n", b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n", b"$-1\r\n"),
    _client("Redis inline", b"PING\r\n", b"+PONG\r\n"),
    _client("memcached", b"get key\r\n", b"END\r\n", b"version\r\n", b"VERSION 1.6\r\n"),
    _client("memcached binary", _hex("80000003000000000000000300000000") + bytes(8) + b"key", _hex("8100") + bytes(22)),
    _client("MongoDB", _hex("3a0000000100000000000000d407000000000000") + b"admin.$cmd\0" + bytes(27), bytes(40)),
    _client("Cassandra", _hex("0400000005000000") + b"\0", _hex("8400000006000000") + b"\0"),
    _client(
        "TDS (SQL Server)",
        _hex("1201002f00000100000015000601001b000102001c000c0300280004ff08000155") + bytes(14),
        bytes(37),
    ),
    _client("Oracle TNS", _hex("003a000001000000013801200000") + bytes(44), bytes(24)),
    _client(
        "MQTT 3.1.1",
        _hex("100d00044d51545404020 03c00016 1".replace(" ", "")),
        _hex("20020000"),
        _hex("c000"),
        _hex("d000"),
    ),
    _client("MQTT 5", _hex("101000044d5154540502003c000000036162 63".replace(" ", "")), _hex("2003000000")),
    _client("AMQP 0-9-1", b"AMQP\x00\x00\x09\x01", _hex("01000000000004000a000ace")),
    _client("AMQP 1.0", b"AMQP\x00\x01\x00\x00", b"AMQP\x00\x01\x00\x00"),
    _client("STOMP", b"CONNECT\naccept-version:1.2\nhost:x\n\n\0", b"CONNECTED\nversion:1.2\n\n\0"),
    _client("NATS, client first", b"CONNECT {}\r\nPING\r\n", b"PONG\r\n"),
    _server("NATS", b'INFO {"server_id":"x"}\r\n', b"CONNECT {}\r\nPING\r\n", b"PONG\r\n"),
    _client("Kafka", _hex("0000001a00120003000000010004") + b"test" + bytes(12), bytes(30)),
    _client("ZooKeeper four letters", b"ruok", b"imok"),
    _client("XMPP", b"<?xml version='1.0'?><stream:stream to='example.org'>", b"<?xml version='1.0'?><stream:stream>"),
    _client("XMPP without a prolog", b"<stream:stream to='example.org' version='1.0'>", b"<stream:features/>"),
    _client(
        "RDP", _hex("030000130ee000000000000100080003000000"), _hex("030000130ed000001234000200080002000000"), _TLS
    ),
    _client("BitTorrent", b"\x13BitTorrent protocol" + bytes(48), b"\x13BitTorrent protocol" + bytes(48)),
    _client("DNS", _DNS, _DNS),
    _client("SIP", b"OPTIONS sip:a@example.org SIP/2.0\r\nVia: SIP/2.0/TCP x\r\n\r\n", b"SIP/2.0 200 OK\r\n\r\n"),
    _client("RTSP", b"OPTIONS rtsp://example.org/a RTSP/1.0\r\nCSeq: 1\r\n\r\n", b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n"),
    _client("LDAP", _hex("300c020101600702010304008000"), _hex("300c02010161070a010004000400")),
    _client("Kerberos", _hex("0000001c6a1a3018a103020105a20302010a") + bytes(14), _hex("000000047e020000")),
    _client("SMB 2", _hex("000000 44fe534d4240000100".replace(" ", "")) + bytes(58), bytes(68)),
    _client("SMB 1", _hex("00000045ff534d4272") + bytes(64), bytes(60)),
    _client("NetBIOS", _hex("81000044") + bytes(68), _hex("82000000")),
    _client("NFS", _hex("80000028") + bytes(40), _hex("80000018") + bytes(24)),
    _client(
        "X11", _hex("6c000b0000000000 00000000".replace(" ", "")), _hex("0100 0b000000".replace(" ", "")) + bytes(32)
    ),
    _client("RTMP", b"\x03" + bytes(1536), b"\x03" + bytes(3072), bytes(1536)),
    _client("Git", b"0032git-upload-pack /project.git\0host=example.org\0", b"0000"),
    _client("finger", b"user\r\n", b"nobody\r\n"),
    _client("gopher", b"/\r\n", b"iWelcome\r\n.\r\n"),
    _client("whois", b"example.org\r\n", b"No match\r\n"),
    _client("ident", b"6191, 23\r\n", b"6191, 23 : USERID : UNIX : a\r\n"),
    _client("gemini's shape in the clear", b"gemini://example.org/\r\n", b"20 text/gemini\r\n"),
    _client("SOCKS 5", _hex("050100"), _hex("0500"), _hex("05010001c000020a0050"), _hex("05000001000000000000")),
    _client("SOCKS 4", _hex("04010050c000020a00"), _hex("005a000000000000")),
    _client("OpenVPN", _hex("002a38") + bytes(41), _hex("001a40") + bytes(25)),
    _client("Tor in a shape of its own", _hex("00000700"), _hex("00000700")),
    _client("Minecraft", _hex("1000fd050b") + b"example.org" + _hex("63dd01") + _hex("0100"), b"\x05\x00\x03{ }"),
    _client("Steam's length", _hex("2000000056543031") + bytes(32), bytes(40)),
    _client("WhatsApp", b"WA\x06\x03" + _hex("00002c") + bytes(44), bytes(60)),
    _client("Telegram", b"\xef\x0a" + bytes(40), bytes(20)),
    _client("Signal-like noise", bytes(range(1, 49)), bytes(range(48))),
    _client("PROXY protocol 1", b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", b"ok"),
    _client("PROXY protocol 2", _hex("0d0a0d0a000d0a515549540a2000 0000".replace(" ", "")), b"ok"),
    _client(
        "SSL 2 hello's shape", _hex("802e0100020015000000100100800200800600400400800700c0030080") + bytes(19), bytes(20)
    ),
    _client("one octet", b"\x00", b"\x01", b"\x02"),
    _client("an empty line", b"\r\n", b"ok\r\n"),
    _client("a letter", b"G", b"ok"),
    _client("words like a method", b"GETTING ready\n", b"ok\n"),
    _client("a JSON line", b'{"jsonrpc":"2.0","method":"mining.subscribe","id":1}\n', b'{"id":1}\n'),
    _client("64 KiB at once", bytes(range(256)) * 256, bytes(range(256)) * 256),
    _client("nothing but an end"),
)
"""Turns begin with the client's, or with the server's where `server_first`. Names are unique."""
