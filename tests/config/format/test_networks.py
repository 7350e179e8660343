"""Prefixes, and what is said of those that are wrong."""

from ipaddress import ip_network
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from tokgate.config.diagnostics import Code
from tokgate.config.format import networks


@given(st.ip_addresses(), st.integers(0, 128))
def test_corrected_cidr(address: Any, length: int) -> None:
    """The network that an error about host bits names is the right one, and is accepted."""
    length = min(length, address.max_prefixlen)
    try:
        assert networks.cidr(f"{address}/{length}").prefixlen == length
    except PydanticCustomError as error:
        meant = str(error).rpartition("`")[0].rpartition("`")[2]
        assert networks.cidr(meant) == ip_network(meant)
        if error.type == Code.HOST_BITS:
            assert address in ip_network(meant)
