"""server_name with octets that are no host name to a strict reader, and one all the same to a lenient server."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from tokgate.evasion.attempt import Attempt, Family, Opens, Target
from tokgate.evasion.families.tls_records import said
from tokgate.evasion.hello import SERVER_NAME, Extension, hello_12, records, server_name, vector

HARMLESS = b"www.example.org"


def _spelled(spell: Callable[[bytes, bytes], bytes]) -> Callable[[Target], list[bytes]]:
    """A hello whose one name is made from the target's: from all of it, and from its base."""
    return lambda target: [records(hello_12(server_name(spell(target.octets, target.base))))]


def _extended(extend: Callable[[bytes], list[Extension]]) -> Callable[[Target], list[bytes]]:
    return lambda target: [records(hello_12(*extend(target.octets)))]


def _entries(*entries: tuple[int, bytes]) -> Extension:
    return SERVER_NAME, vector(2, b"".join(bytes([kind]) + vector(2, name) for kind, name in entries))


_SPELLINGS: dict[str, tuple[str, Callable[[bytes, bytes], bytes]]] = {
    "exclamation-mark": ("a label with !", lambda whole, base: b"a!b." + base),
    "wildcard": ("* for a label", lambda whole, base: b"*." + base),
    "leading-dot": ("a dot first", lambda whole, base: b"." + base),
    "two-leading-dots": ("two dots first", lambda whole, base: b".." + base),
    "percent": ("a percent-encoded letter", lambda whole, base: b"%77ww." + base),
    "percent-dot": ("a percent-encoded dot", lambda whole, base: b"www%2e" + base),
    "label-of-64": ("a label of 64 octets", lambda whole, base: b"a" * 64 + b"." + base),
    "name-of-300": ("300 octets", lambda whole, base: b"a." * ((300 - len(base)) // 2) + base),
    "port": ("a port behind it", lambda whole, base: whole + b":443"),
    "utf-8": ("a letter in UTF-8", lambda whole, base: "café.".encode() + base),
    "ideographic-dot": ("the dot of Japanese", lambda whole, base: "www。".encode() + base),
    "nul-behind": ("a NUL behind it", lambda whole, base: whole + b"\0"),
    "nul-and-name": ("a NUL and a harmless name behind it", lambda whole, base: whole + b"\0." + HARMLESS),
    "name-and-nul": ("a harmless label and a NUL before it", lambda whole, base: b"example\0." + base),
    "leading-space": ("a space first", lambda whole, base: b" " + whole),
    "trailing-space": ("a space behind it", lambda whole, base: whole + b" "),
    "newline": ("a line feed behind it", lambda whole, base: whole + b"\n"),
    "url": ("a URL", lambda whole, base: b"https://" + whole + b"/"),
    "empty-label": ("two dots in it", lambda whole, base: b"www.." + base),
    "two-trailing-dots": ("two dots behind it", lambda whole, base: whole + b".."),
    "cr-lf-and-name": ("CR LF and a harmless name behind it", lambda whole, base: whole + b"\r\n" + HARMLESS),
    "delete": ("the control character DEL", lambda whole, base: b"a\x7fb." + base),
    "nul-in-label": ("a NUL inside a label", lambda whole, base: b"w\0w." + base),
    "zero-width-space": ("a space of no width", lambda whole, base: "w\u200bw.".encode() + base),
    "utf-16": ("in UTF-16", lambda whole, base: whole.decode().encode("utf-16-be")),
    "overlong-utf-8": ("a dot in UTF-8 that is too long", lambda whole, base: b"www\xc0\xae" + base),
    "dns-labels": ("as in DNS", lambda whole, base: b"".join(vector(1, label) for label in whole.split(b".")) + b"\0"),
    "empty-port": ("an empty port behind it", lambda whole, base: whole + b":"),
    "label-of-63": ("a label of 63 octets", lambda whole, base: b"a" * 63 + b"." + base),
    "all-numbers-first": ("an address before it", lambda whole, base: b"127.0.0.1." + base),
}

_ORDINARY: dict[str, tuple[str, Callable[[bytes, bytes], bytes]]] = {
    "plain": ("the name as it is", lambda whole, base: whole),
    "uppercase": ("in capitals", lambda whole, base: whole.upper()),
    "mixed-case": ("in both cases", lambda whole, base: whole.title().swapcase()),
    "trailing-dot": ("with the root's dot", lambda whole, base: whole + b"."),
    "underscore": ("a label with _", lambda whole, base: b"a_b." + base),
    "leading-hyphen": ("a label that begins with a hyphen", lambda whole, base: b"-a." + base),
    "longest": ("nearly the longest", lambda whole, base: (b"a" * 49 + b".") * ((252 - len(base)) // 50) + base),
    "punycode": ("a label in punycode", lambda whole, base: b"XN--caf-dma." + base),
}

_MAPPED: dict[str, tuple[str, Callable[[bytes, bytes], bytes]]] = {
    "circled": ("circled letters", lambda _, base: _in_first_label(base, 0x24D0)),
    "combining": ("a joiner that is ignored", lambda _, base: base[:1] + "\u034f".encode() + base[1:]),
    "circled-dot": ("a one dot leader", lambda _, base: base.replace(b".", "\u2024".encode(), 1)),
}
"""Names that IDNA maps to the target's, or that look like it: its octets don't stand in them."""


def _in_first_label(base: bytes, a: int) -> bytes:
    """The letters of the first label as those of another alphabet that begins at `a`."""
    label, _, rest = base.decode().partition(".")
    return f"{''.join(chr(a + ord(each) - 97) if each.isalpha() else each for each in label)}.{rest}".encode()


_EXTENSIONS: dict[str, tuple[str, Callable[[bytes], list[Extension]]]] = {
    "two-names": ("a harmless name before it", lambda name: [server_name(HARMLESS, name)]),
    "two-names-reversed": ("a harmless name behind it", lambda name: [server_name(name, HARMLESS)]),
    "twice-the-name": ("the name twice", lambda name: [server_name(name, name)]),
    "two-extensions": ("a harmless extension before it", lambda name: [server_name(HARMLESS), server_name(name)]),
    "two-extensions-reversed": ("and behind it", lambda name: [server_name(name), server_name(HARMLESS)]),
    "empty-and-name": ("an empty extension before it", lambda name: [(SERVER_NAME, b""), server_name(name)]),
    "empty-name-and-name": ("an empty name before it", lambda name: [server_name(b"", name)]),
    "type-1": ("a name of type 1", lambda name: [server_name(name, kind=1)]),
    "type-1-and-0": ("a name of type 1 before it", lambda name: [_entries((1, HARMLESS), (0, name))]),
    "type-0-and-1": ("the name, and one of type 1", lambda name: [_entries((0, name), (1, HARMLESS))]),
    "list-too-short": (
        "a list that ends inside the name",
        lambda name: [(SERVER_NAME, len(name).to_bytes(2) + b"\0" + vector(2, name))],
    ),
    "octets-behind-list": ("an octet behind the list", lambda name: [(SERVER_NAME, server_name(name)[1] + b"\0")]),
    "name-without-list": ("the name and nothing around it", lambda name: [(SERVER_NAME, name)]),
    "many-names": ("behind fifty harmless names", lambda name: [server_name(*[HARMLESS] * 50, name)]),
    "type-1-twice": ("two names of type 1", lambda name: [server_name(name, HARMLESS, kind=1)]),
    "unknown-kind-without-length": (
        "an entry of another kind whose length is of another form",
        lambda name: [(SERVER_NAME, vector(2, b"\1\0" + b"\0" + vector(2, name)))],
    ),
    "name-cut": ("a list cut inside its last name", lambda name: [(SERVER_NAME, server_name(HARMLESS, name)[1][:-3])]),
    "name-length-too-long": (
        "a name whose length goes beyond its list",
        lambda name: [(SERVER_NAME, vector(2, b"\0" + (len(name) + 5).to_bytes(2) + name))],
    ),
    "name-length-too-short": (
        "a name whose length leaves octets behind it",
        lambda name: [(SERVER_NAME, vector(2, b"\0" + (len(name) - 4).to_bytes(2) + name))],
    ),
    "list-of-lists": ("a list in a list", lambda name: [(SERVER_NAME, vector(2, server_name(name)[1]))]),
}


MAPPED: Final = frozenset(f"sni-{name}" for name in _MAPPED)
_attempt = partial(Attempt, family=Family.SERVER_NAMES, opens=Opens.TLS)


def attempts() -> Iterator[Attempt]:
    """Attempts by the spelling of server_name."""
    for name, (what, spell) in (_SPELLINGS | _MAPPED | _ORDINARY).items():
        innocent = name in ("plain", "uppercase", "mixed-case", "underscore")
        yield _attempt(f"sni-{name}", what, partial(said, _spelled(spell)), innocent=innocent)
    for name, (what, extend) in _EXTENSIONS.items():
        yield _attempt(f"sni-{name}", what, partial(said, _extended(extend)))
