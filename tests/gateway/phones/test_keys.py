"""WireGuard's keys."""

import pytest

from tokgate.gateway.phones.keys import is_key, new_private_key, public_key


def test_a_known_pair() -> None:
    """The public key is that of RFC 7748 §6.1, in Base64."""
    alice = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo="
    assert public_key(alice) == "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="


def test_new_ones_differ() -> None:
    """Each is a key, and no two are the same."""
    first, second = new_private_key(), new_private_key()
    assert is_key(first)
    assert is_key(public_key(first))
    assert first != second


@pytest.mark.parametrize("text", ["", "x", "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo", "AAAA", "hSDwCYkw p1R0i33c="])
def test_no_keys(text: str) -> None:
    """What is no key is told without its text, which may be most of a secret."""
    assert not is_key(text)
    with pytest.raises(ValueError, match=r"\Ano key\Z"):
        public_key(text)
