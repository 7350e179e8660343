"""A small policy, and what running a command leaves behind."""

import io
import json
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tokgate.cli.main import build_parser

POLICY = """\
version: 1
services:
  clips:
    title: Clips
    names:
      suffix: [clips.example.org]
      exact: [static.example.net]
    addresses: [203.0.113.0/28]
    store: {google-play: [org.example.clips]}
networks:
  office: {cidrs: [192.0.2.0/24, "2001:db8:1::/48"], timezone: Europe/Brussels}
  lab: {cidrs: [192.0.2.64/28, "2001:db8:2::/48"], timezone: Europe/Brussels}
  abroad: {cidrs: [198.51.100.0/24], timezone: America/New_York}
bans:
  spring-ban:
    title: No clips at work
    authority: Example Authority
    basis: Circular 1 of 10 March 2023
    services: [clips]
    networks: [office]
    announced: 2023-03-01
    starts: 2023-03-10T00:00
    duration: P6M
  lab-watch:
    title: Watching the lab
    services: [clips]
    networks: [lab, abroad]
    starts: 2023-03-01T00:00
    action: monitor
exemptions:
  press:
    ban: spring-ban
    clients: [192.0.2.9/32]
    until: 2023-06-30T18:00
    reason: Monitoring of public statements
tests:
  - {client: 192.0.2.7, host: www.clips.example.org, at: "2023-03-10T00:00:00+01:00", expect: block}
  - {client: 192.0.2.7, host: www.clips.example.org, at: "2023-03-09T23:59:59+01:00", expect: allow}
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str


type Command = Callable[..., Outcome]


def explained(*words: str) -> dict[str, Any]:
    """What `tokgate explain --json` answers, by a parser that is made once: for thousands of questions."""
    options = _explain().parse_args(["explain", "--json", *words])
    with redirect_stdout(io.StringIO()) as out:
        assert options.run(options) == 0
    document: dict[str, Any] = json.loads(out.getvalue())
    return document


_explain = cache(lambda: build_parser(("explain",)))


def shell_environment(folder: Path, **more: str) -> dict[str, str]:
    """The environment of somebody at home in `folder`, whose shell finds the `tokgate` of this source folder."""
    programs = folder / "bin"
    programs.mkdir()
    (programs / "tokgate").write_text(f'#!/bin/sh\nexec {sys.executable} -m tokgate "$@"\n')
    (programs / "tokgate").chmod(0o755)
    addons = str(Path(__file__).parents[2] / "addons")
    path = os.pathsep.join(filter(None, (addons, os.environ.get("PYTHONPATH"))))
    return os.environ | {
        "HOME": str(folder),
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": path,
        "PYTHONUNBUFFERED": "1",  # a pipe gets what is said in the order in which a terminal shows it
        **more,
    }
