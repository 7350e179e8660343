"""The format of a list is told by its lines."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokgate.config.service_lists.entries import ListFormat
from tokgate.config.service_lists.formats import detect, read_list
from tokgate.config.service_lists.selection import Options, select

_PARTS = (
    *("||", "|", "@@", "^", "$", "*", "/", ".", "!", "#", "##", "include:", "full:", "regexp:", "keyword:", "@cn"),
    *("IN", "CNAME", "(", ")", ";", '"'),
    *("0.0.0.0", "::1", "192.0.2.1", "clips.example", "co.uk", "bücher.example", "a" * 70, "[", "]", "{", "\\065"),
    *("denyallow=a|b", "badfilter", "\n", "\n", "\n", " ", "\t", "\x00", "\u2028", "(?=a)", "id:", "rules:"),
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# c\ninclude:a\nclips.example @ads\nfull:a.example\nregexp:^a$\n", ListFormat.DOMAIN_LIST),
        ("domain:clips.example:@cn\n", ListFormat.DOMAIN_LIST),
        ("clips.example\nb.example # c\n", ListFormat.DOMAIN_LIST),
        ("# c\n0.0.0.0 clips.example b.example\n::1 c.example\n", ListFormat.HOSTS),
        ("*.clips.example\n*.b.example\n", ListFormat.HOSTS),
        ("! Title: x\n||clips.example^\n@@||a.clips.example^\n", ListFormat.ADBLOCK),
        ("||clips.example^$important\nplain.example\n||b.example^\n", ListFormat.ADBLOCK),
        ("$TTL 60\n@ SOA a. b. 1 2 3 4 5\nclips.example CNAME .\n", None),
        ('{"blocked_services": []}', ListFormat.ADGUARD),
        ("id: clips\nname: Clips\nrules:\n  - '||clips.example^'\n", ListFormat.ADGUARD),
        ("# nothing\n\n", None),
        ("a b c d e\n", None),
    ],
)
def test_the_format_is_told(text: str, expected: ListFormat | None) -> None:
    """Who gives no `--format` gets the one that the list has."""
    assert detect(text) is expected


@given(
    chosen=st.sampled_from(list(ListFormat)),
    text=st.one_of(st.text(max_size=80), st.lists(st.sampled_from(_PARTS), max_size=25).map(" ".join)),
)
def test_no_text_breaks_a_reader(chosen: ListFormat, text: str) -> None:
    """A list that somebody else wrote ends in patterns and reports, or is refused: never in a trace."""
    detect(text)
    try:
        found = read_list(chosen, "x", text, "x", lambda _: None)
    except ValueError:
        assert chosen is ListFormat.ADGUARD
        return
    chosen_from = select(found, Options(keywords=True, subdomains=True))
    assert all(each.place.line >= 1 for each in (*chosen_from.dropped, *chosen_from.unreadable))
