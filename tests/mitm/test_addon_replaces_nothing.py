"""Other addons in the same process get mitmproxy as it is: our classes are put into our connections alone."""

import subprocess
import sys

import pytest
from mitmproxy.proxy import layer
from mitmproxy.proxy.layers.http import HttpLayer, HTTPMode

from labs.proxy_lab import ALLOWED, Lab, client

LOOK = """
import importlib, pkgutil, sys
import h2.connection, h11, mitmproxy.tools.main, tokgate

def modules(package):
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not found.name.endswith("__main__"):
            try:
                yield importlib.import_module(found.name)
            except ImportError:  # an extra that isn't installed, or another system's
                pass

def names():
    theirs = [each for name, each in sys.modules.items() if name.split(".")[0] in ("mitmproxy", "h11", "h2")]
    for module in theirs:
        for name, value in list(vars(module).items()):
            yield f"{module.__name__}.{name}", value
            if isinstance(value, type) and value.__module__ == module.__name__:
                for attribute, inner in list(vars(value).items()):
                    yield f"{module.__name__}.{name}.{attribute}", inner

import h2, mitmproxy
for each in (h11, h2, mitmproxy):
    list(modules(each))
before = {name: value for name, value in names() if not name.rpartition(".")[2].startswith("__")}
assert len(before) > 5000, len(before)
assert len(list(modules(tokgate))) > 250
REPLACE
after = dict(names())
print(*sorted(name for name, value in before.items() if after.get(name) is not value))
"""


def test_importing_replaces_nothing() -> None:
    """Every name in mitmproxy, h11 and h2 is what it was before all of tokgate was imported."""
    replacing = "import mitmproxy.net.check as it; it.is_valid_host = h2.connection.H2Connection.ping = print"
    found = {"": [], replacing: ["h2.connection.H2Connection.ping", "mitmproxy.net.check.is_valid_host"]}
    for replace, names in found.items():
        script = [sys.executable, "-W", "ignore", "-c", LOOK.replace("REPLACE", replace)]
        assert subprocess.run(script, capture_output=True, text=True, check=True).stdout.split() == names


class Own:
    """Somebody's addon, which has mitmproxy speak HTTP on its own connections."""

    def next_layer(self, next_layer: layer.NextLayer) -> None:
        next_layer.layer = HttpLayer(next_layer.context, HTTPMode.regular)


@pytest.mark.parametrize("other", [(), (Own(),)], ids=["alone", "with another"])
async def test_another_addon_gets_mitmproxys_own_layers(lab: Lab, other: tuple[Own, ...]) -> None:
    """What it builds is mitmproxy's throughout; on our own connections nothing of that is there."""
    origin = await lab.web_origin(tls=False)
    proxy = await lab.proxy(before=other)
    async with client(proxy.port) as guest:
        url = f"http://{ALLOWED}:{origin.port}/"
        assert (await guest.get(f"{ALLOWED}:{origin.port}", url)).status == 200
    theirs = {each.__name__ for each in proxy.layers.found}
    assert theirs == ({"HttpLayer", "HttpStream", "HttpClient", "Http1Server", "Http1Client"} if other else set())
