"""The canary's addresses on the machine itself, and who can use them."""

import pytest
from pyroute2 import IPRoute

from labs.netns import Namespace
from labs.ruleset_lab import Lab
from labs.waiting import until
from tokgate.gateway.canary import links
from tokgate.gateway.canary.definition import server_link
from tokgate.policy.settings import CanarySettings


@pytest.mark.parametrize("version", [4, 6])
def test_no_client_reaches_its_server(lab: Lab, version: int) -> None:
    """Who opened connections there and said nothing would keep it from answering the canary."""
    settings = CanarySettings()
    server = str(server_link(settings, version).far)
    (listener,) = lab.gateway.inside(lambda: links.make_inside(settings, (version,)))
    with listener:
        lab.gateway.connect(server, 443).close()
        with pytest.raises(OSError, match="unreachable"):
            lab.client.connect(server, 443)
    lab.gateway.inside(links.take_out)
    with pytest.raises(OSError, match="unreachable"):
        lab.gateway.connect(server, 443)


@pytest.mark.parametrize("version", [4, 6])
def test_one_that_is_started_again(namespace: Namespace, version: int) -> None:
    """It listens at the port of the web again, although the one before had connections there."""
    settings = CanarySettings()
    server = str(server_link(settings, version).far)
    (listener,) = namespace.inside(lambda: links.make_inside(settings, (version,)))
    with listener, namespace.connect(server, 443) as client:
        listener.accept()[0].close()  # first, and so it keeps the ports in TIME_WAIT
        assert client.recv(1) == b""
    until("that is so", lambda: namespace.output("ss", "-Htn", "state", "time-wait"))
    namespace.inside(links.take_out)
    (listener,) = namespace.inside(lambda: links.make_inside(settings, (version,)))
    with listener:
        assert listener.getsockname()[1] == 443


def test_a_link_that_goes_meanwhile(namespace: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rules are removed, too, where the kernel takes its link out just then, with the namespace of its far end."""
    namespace.run("ip", "rule", "add", "from", "198.18.116.1", "priority", "748", "table", "29811")
    monkeypatch.setattr(IPRoute, "link_lookup", lambda self, **wanted: [4242], raising=False)
    namespace.inside(links.take_out)
    assert "748:" not in namespace.output("ip", "rule")
