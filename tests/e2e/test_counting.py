"""Coverage and metrics tell what real clients did."""

from __future__ import annotations

import json
import ssl
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from labs.clients import UNRECOGNIZED_NAME, python
from labs.gateway import CARRIERS, Gateway, office_policy
from labs.netns import Lab, Namespace, wait_until
from labs.origin import ALLOWED, BANNED, Origin

METRICS = "127.0.0.1:9300"


def scraped(gateway: Gateway) -> dict[tuple[str, ...], float]:
    """Decisions by network, visibility and verdict, as Prometheus gets them."""
    text = gateway.namespace.run("curl", "--silent", "--fail", f"http://{METRICS}/metrics").stdout
    return {
        tuple(sample.labels[label] for label in ("network", "visibility", "verdict")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "tokgate_decisions_total"
    }


def nameless(namespace: Namespace, address: str) -> None:
    """A TLS connection that names no host."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with namespace.connect(address, 443, 20) as plain, context.wrap_socket(plain) as secure:
        secure.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert secure.recv(1)


def test_coverage_and_metrics(lab: Lab, origin: Origin, any_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    """Every connection once: by name, without one, refused, by another network; the scrape and the log agree."""
    policy = office_policy()
    policy["services"]["other"] = {"title": "Other", "names": {"suffix": ["other.example.net"]}}
    policy["bans"]["watch"] = {  # without a ban of its own the visitors' network would not come to the gates at all
        "title": "Watching the visitors",
        "services": ["other"],
        "networks": ["visitors"],
        "starts": "2023-03-10T00:00",
        "action": "monitor",
    }
    with any_gateway(tmp_path, policy=policy, options=["--metrics", METRICS], **CARRIERS["gates"]) as gateway:
        wait_until("health is green", lambda: _healthy(gateway))
        for _ in range(3):
            assert not python(lab.client, ALLOWED, 4, False, origin.authority).error
        assert not python(lab.client, ALLOWED, 6, False, origin.authority).error
        for _ in range(2):
            assert python(lab.client, BANNED, 4, False, origin.authority).error == UNRECOGNIZED_NAME
        assert not python(lab.guest, BANNED, 4, False, origin.authority).error
        nameless(lab.client, Lab.ALLOWED[4])
        expected = {
            ("office", "sni", "allow"): 4,
            ("office", "sni", "block"): 2,
            ("office", "none", "allow"): 1,
            ("visitors", "sni", "allow"): 1,
        }
        wait_until("the scrape tells all", lambda: scraped(gateway) == expected)
    told: Counter[tuple[str, str]] = Counter()
    for record in gateway.records():
        for network, seen in record.get("tokgate", {}).get("coverage", {}).items():
            for visibility, number in seen.items():
                told[network, visibility] += number
    assert told == {("office", "sni"): 6, ("office", "none"): 1, ("visitors", "sni"): 1}


def _healthy(gateway: Gateway) -> bool:
    asked = gateway.namespace.run("curl", "--silent", f"http://{METRICS}/healthz", check=False)
    return asked.returncode == 0 and bool(json.loads(asked.stdout)["ok"])
