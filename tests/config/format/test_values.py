"""Values of policies: what parsers take and say, and that whatever is written is a value or an error of ours."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from tokgate.config import extras
from tokgate.config.diagnostics import Code
from tokgate.config.extras import Extra
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
    *(partial(services.store_id, store) for store in STORES),
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


@pytest.mark.parametrize(
    ("parse", "value", "words"),
    [
        (values.one_line, "a" * 1001, "at most 1000 characters"),
        (values.flag, "x" * 61, f"not `{'x' * 57}...`"),
        (values.flag, None, "not nothing"),
        (values.link, "https://[::1", "no web address"),
        (connection_settings.directory_url, "ldaps://[::1", "is no directory"),
        (connection_settings.directory_url, "ldaps://a.example.org:99999", "is no directory"),
        (connection_settings.directory_url, "ldaps://user@a.example.org", "is no directory"),
        (connection_settings.directory_url, "https://a.example.org", "is no directory"),
        (connection_settings.directory_url, "ldaps://a.example.org/o=b", "is no directory"),
        (settings.outlet, "syslog://user@a.example.org", "is none of"),
    ],
)
def test_mistakes(parse: Callable[[Any], Any], value: Any, words: str) -> None:
    """Whoever mistypes a value reads what stands there and what would be right."""
    with pytest.raises(PydanticCustomError) as raised:
        parse(value)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("parse", "value"),
    [
        (values.one_line, "a" * 1000),
        (values.one_line, "Décision\xa0: می\u200cخواهم"),
        (connection_settings.directory_url, "ldaps://ldap.example.org:636"),
        (connection_settings.directory_url, "ldap://[2001:db8::1]"),
        (settings.outlet, "journald"),
        (settings.outlet, "syslog"),
        (settings.outlet, "syslog://[2001:db8::1]:601"),
        (settings.outlet, "syslog://log.example.org"),
        (networks.inventory, "Devices.CSV"),
    ],
)
def test_values(parse: Callable[[Any], Any], value: str) -> None:
    """What is right is taken as it was written, the signs that languages need included."""
    assert parse(value) == value


def test_what_needs_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key whose library isn't installed is an error that says what to install."""
    monkeypatch.setattr(extras, "find_spec", lambda module: None)
    with pytest.raises(PydanticCustomError, match=r"\[calendar\]") as raised:
        times.holiday_code("BE")
    assert raised.value.type == Code.MISSING_EXTRA
    assert "are missing" in str(extras.missing_extra(Extra.CALENDAR, "one", "two"))
