"""Text and paths; and of all parsers, that whatever is written is a value or an error of ours."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from tokgate.config.diagnostics import Code
from tokgate.config.format import address_parsers, name_patterns, parsers, time_parsers
from tokgate.policy.stores import STORES

_VALIDATORS: list[Callable[[Any], Any]] = [
    *(parsers.text, parsers.one_line, parsers.link, parsers.flag, parsers.outlet),
    *(parsers.directory_url, parsers.inventory, parsers.whole_path),
    *(time_parsers.date, time_parsers.moment, time_parsers.expiry, time_parsers.until, time_parsers.duration),
    *(time_parsers.lasting, time_parsers.continuing, time_parsers.clock, time_parsers.closing),
    *(time_parsers.day_range, parsers.number_of("days", 1, 36_500), time_parsers.holiday_code, time_parsers.timezone),
    *(address_parsers.cidr, address_parsers.nat64_prefix, address_parsers.address),
    *(address_parsers.ports, address_parsers.interface),
    *(name_patterns.suffix, name_patterns.exact, name_patterns.label, name_patterns.regex),
    *(name_patterns.store_id(store) for store in STORES),
]


@pytest.mark.parametrize("validate", _VALIDATORS)
@given(
    written=st.none() | st.text(max_size=30) | st.lists(st.text(), max_size=1) | st.dictionaries(st.text(), st.text())
)
def test_any_text(validate: Callable[[Any], Any], written: Any) -> None:
    """Whatever stands there, it is a value or an error with a code of ours: never another exception."""
    code = None
    try:
        validate(written)
    except PydanticCustomError as error:
        code = error.type
    assert code is None or code in Code
