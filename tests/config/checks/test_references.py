"""References between entries: what is empty, and who can't be known."""

from collections.abc import Callable

import pytest

from tokgate.config.diagnostics import Code
from tokgate.config.loader import Loaded

Say = Callable[[str], Loaded]


@pytest.mark.parametrize(("services", "never"), [("[empty, clips]", False), ("[empty]", True), ("[clips]", False)])
def test_services_that_hold_nothing(say: Say, services: str, never: bool) -> None:
    """A ban of which one service is still empty bans the others: it is refused only where nothing is left to ban."""
    loaded = say(
        "services: {empty: {title: Soon}, clips: {names: {suffix: [clips.example.org]}}}\n"
        "networks: {office: {cidrs: [192.0.2.0/24]}}\n"
        f"bans: {{it: {{title: x, services: {services}, networks: [office], starts: 2023-03-10}}}}\n"
    )
    assert ([each.code for each in loaded.errors] == [Code.NEVER_APPLIES]) is never
    assert (loaded.policy is None) is never


@pytest.mark.parametrize(
    ("proxy_auth", "told"),
    [("{htpasswd: /etc/users}", True), ("{htpasswd: /etc/users, groups: /etc/groups}", False)],
)
def test_groups_of_nobody(say: Say, proxy_auth: str, told: bool) -> None:
    """A ban for a group holds nobody if no file says who is in it; an admin who has named one is not warned."""
    loaded = say(
        "services: {clips: {names: {suffix: [clips.example.org]}}}\n"
        "networks: {press: {groups: [press]}}\n"
        "bans: {it: {title: x, services: [clips], networks: [press], starts: 2023-03-10}}\n"
        f"settings: {{proxy_auth: {proxy_auth}}}\n"
    )
    assert [each.code for each in loaded.diagnostics if each.code is Code.NO_PROXY_AUTH] == (
        [Code.NO_PROXY_AUTH] if told else []
    )


@pytest.mark.parametrize(
    ("own", "word", "meant"),
    [
        ("svc", "svk", "svc"),  # the catalogue's `vk` is more similar
        ("clips", "svk", "vk"),
        ("tiktok-ads-x", "tiktoc", "tiktok"),
        ("clips", "clibs", "clips"),
    ],
)
def test_a_typo_of_an_own_service(say: Say, own: str, word: str, meant: str) -> None:
    """The policy's own service goes before the catalogue's, unless the typo would be a long one."""
    (error,) = say(
        f"services: {{{own}: {{names: {{suffix: [clips.example.org]}}}}}}\n"
        "networks: {office: {cidrs: [192.0.2.0/24]}}\n"
        f"bans: {{it: {{title: x, services: [{word}], networks: [office], starts: 2023-03-10}}}}\n"
    ).errors
    assert error.message == f"unknown service `{word}`; did you mean `{meant}`?"
