"""What is looked at: from URLs and back, and as SQL in which nothing that was typed stands."""

from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whenever import Instant

from builders import at
from tokgate.review.web.look import FACETS, MAX_PAGE, About, Look, read

values = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=20)
moments = st.integers(0, 2_000_000_000).map(Instant.from_timestamp)


@st.composite
def looks(draw: st.DrawFn) -> Look:
    """Any look that a page can link to."""
    since = draw(st.none() | moments)
    until = draw(st.none() | moments)
    if since is not None and until is not None and since >= until:
        until = None
    look = Look(about=draw(st.sampled_from(About))).during(since, until)
    for facet in draw(st.sets(st.sampled_from([facet for facet in FACETS if facet != "name"]))):
        look = look.with_filter(facet, draw(values))
    return look.on_page(draw(st.integers(1, MAX_PAGE)), draw(st.integers(1, 10**12)))


@given(looks())
def test_a_link_leads_to_the_look_that_made_it(look: Look) -> None:
    """Everything survives the way through a URL."""
    assert read(parse_qsl(look.query, keep_blank_values=True)) == (look, {})


@given(st.dictionaries(st.sampled_from(list(FACETS)), values))
def test_nothing_that_was_typed_stands_in_the_sql(said: dict[str, str]) -> None:
    """It is the same for any values of the same kind; they are parameters."""
    look, _ = read(said.items())
    where, parameters = look.where()
    plain, _ = read({facet: "x" for facet in said if facet != "client"}.items())
    if "client" not in said:
        assert where == plain.where()[0]
    assert set(parameters) <= {f"is_{facet}" for facet in FACETS} | {"name", "client", "client_first", "client_last"}


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2023-03-10T08:00", "2023-03-10T08:00:00Z"),
        ("2023-03-10T08:00:30", "2023-03-10T08:00:30Z"),
        ("2023-03-10", "2023-03-10T00:00:00Z"),
        ("2023-03-10T08:00+01:00", "2023-03-10T07:00:00Z"),
    ],
)
def test_times_are_utc_unless_they_say_otherwise(text: str, meant: str) -> None:
    """As `datetime-local` gives them, and as people type."""
    assert read([("since", text)])[0].since == at(meant)


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"since": "yesterday"}, "since"),
        ({"until": "2023-02-30"}, "until"),
        ({"until": "0001-01-01"}, "until"),
        ({"since": "2023-03-10", "until": "2023-03-10"}, "until"),
        ({"ban": "x" * 2000}, "ban"),
        ({"network": "a\x00b"}, "network"),
        ({"client": "a\nb"}, "client"),
    ],
)
def test_what_makes_no_sense_is_told(said: dict[str, str], field: str) -> None:
    """By field, and left out."""
    look, problems = read(said.items())
    assert list(problems) == [field]
    assert field not in look.parameters


@pytest.mark.parametrize(
    ("text", "page"), [("0", 1), ("-3", 1), ("x", 1), ("", 1), ("7", 7), ("9" * 30, 1), ("99999", MAX_PAGE)]
)
def test_pages_have_bounds(text: str, page: int) -> None:
    """Whatever somebody writes into the address."""
    assert read([("page", text)])[0].page == page
