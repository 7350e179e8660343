"""Response policy zones: names, wildcards, passthrough, addresses, other triggers, and broken lines."""

from pathlib import Path

from tokgate.config.service_lists.rpz import read_rpz

ZONE = """\
$TTL 60
$ORIGIN rpz.example.
@ IN SOA localhost. root.localhost. (
      7 3600 600 86400 60 ) ; over two lines
  IN NS localhost.
clips.example CNAME .
*.clips.example CNAME .
www.example.net 300 IN CNAME *.
*.below.example A 192.0.2.1
an unreadable line
good.clips.example CNAME rpz-passthru.
tcp.example CNAME rpz-tcp-only.
24.0.113.0.203.rpz-ip CNAME .
48.zz.db8.2001.rpz-ip CNAME .
8.0.0.0.10.rpz-client-ip CNAME .
x.rpz-ip CNAME .
last.example CNAME ."""


def test_a_zone() -> None:
    """A name with its wildcard is a suffix, one alone a host; `rpz-ip` is an address prefix."""
    found = read_rpz("zone", ZONE)
    assert [(entry.kind, entry.value, entry.place.line) for entry in found.entries] == [
        ("suffix", "clips.example", 7),
        ("exact", "www.example.net", 8),
        ("suffix", "below.example", 9),
        ("address", "203.0.113.0/24", 13),
        ("address", "2001:db8::/48", 14),
        ("exact", "last.example", 17),
    ]
    assert [entry.value for entry in found.exceptions] == ["good.clips.example"]
    assert found.said == {"revision": "serial 7"}


def test_what_is_not_a_services_name() -> None:
    """Lines about clients, and broken ones, are reported with their numbers; the lines behind them are read."""
    assert [(each.place.line, each.text) for each in read_rpz("zone", ZONE).unreadable] == [
        (10, "an unreadable line"),
        (12, "tcp.example CNAME rpz-tcp-only."),
        (15, "8.0.0.0.10.rpz-client-ip CNAME ."),
        (16, "x.rpz-ip CNAME ."),
    ]


def test_a_zone_without_origin() -> None:
    """A zone whose names are relative to nothing that it states is read as one at the root."""
    assert [entry.value for entry in read_rpz("zone", "clips.example CNAME .\n").entries] == ["clips.example"]


def test_another_kind_of_file() -> None:
    """A file that is no zone is not read line by line for ever."""
    found = read_rpz("zone", "not a zone\n" * 100)
    assert found.entries == []
    assert found.unreadable[-1].why == "more than 50 lines can't be read: no zone file"


def test_directives_that_do_more_than_name(tmp_path: Path) -> None:
    """A list can't make tokgate read another file, or make records without end."""
    (tmp_path / "other").write_text("secret.example CNAME .\n")
    found = read_rpz("zone", f"$INCLUDE {tmp_path}/other\n$GENERATE 1-999999999 h$ CNAME .\nclips.example CNAME .\n")
    assert [entry.value for entry in found.entries] == ["clips.example"]
    assert [each.place.line for each in found.unreadable] == [1, 2]
