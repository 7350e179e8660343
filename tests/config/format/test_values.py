"""Text and paths; and of all parsers, that whatever is written is a value or an error of ours."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from tokgate.config.diagnostics import Code
from tokgate.config.format import connection_settings, networks, services, settings, times, values
from tokgate.policy.stores import STORES

_VALIDATORS: list[Callable[[Any], Any]] = [
    *(values.text, values.one_line, values.link, values.flag, settings.outlet),
    *(connection_settings.directory_url, networks.inventory, values.whole_path),
    *(times.date, times.moment, times.expiry, times.until, times.duration),
    *(times.lasting, times.continuing, times.clock, times.closing),
    *(times.day_range, values.Number("days", 1, 36_500).parse, times.holiday_code, times.timezone),
    *(networks.cidr, settings.nat64_prefix, networks.address),
    *(connection_settings.ports, networks.interface),
    *(services.suffix, services.exact, services.label, services.regex),
    *(services.store_id(store) for store in STORES),
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
