"""Loads a page in headless Chromium with a new set of connections each time, over its debugging pipe."""

import contextlib
import fcntl
import json
import os
import select
import shlex
import time
from pathlib import Path
from typing import Any, Final

from comparison.load import LoadError
from comparison.namespaces import Lab
from comparison.origin import OBJECTS
from comparison.processes import Service
from comparison.settings import ALLOWED_NAME, WEB

_FLAGS: Final = (
    "--headless=new",
    "--no-sandbox",  # the bench runs as root
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--ignore-certificate-errors",  # the origin's certificate is its own
    "--remote-debugging-pipe",
    f"--host-resolver-rules=MAP {ALLOWED_NAME} {WEB}, MAP * ~NOTFOUND",
)
_DEADLINE: Final = 30.0
_TIMING: Final = """(() => {
  const resources = performance.getEntriesByType('resource').filter(entry => entry.name.endsWith('.svg'));
  const protocols = new Set(resources.map(entry => entry.nextHopProtocol));
  return {count: resources.length, protocols: [...protocols],
          ms: performance.getEntriesByType('navigation')[0].loadEventStart};
})()"""


class Browser:
    """One browser; `page_ms()` as often as one likes, then `close()`."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self._folder = folder
        theirs_in, self._out = _pipe()
        self._in, theirs_out = _pipe()
        chromium = ["chromium", *_FLAGS, f"--user-data-dir={folder}", "about:blank"]
        # The browser expects the pipe's ends as descriptors 3 and 4.
        script = f"exec {shlex.join(chromium)} 3<&{theirs_in} 4>&{theirs_out}"
        command = lab.inside(lab.client, "bash", "-c", script)
        self._service = Service(command, folder.with_suffix(".out"), pass_fds=(theirs_in, theirs_out))
        os.close(theirs_in)
        os.close(theirs_out)
        self._received = b""
        self._last = 0

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(LoadError, OSError):
            self._call("Browser.close")
        self._service.end()
        os.close(self._in)
        os.close(self._out)

    def cpu(self) -> float:
        """Seconds of processor used so far."""
        return self._service.cpu()

    def page_ms(self) -> float:
        """Milliseconds from the start of navigation to the load event, all objects over HTTP/2 and new connections."""
        # A context of its own shares neither cache nor connections with the ones before.
        context = self._call("Target.createBrowserContext")["browserContextId"]
        target = self._call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._call("Page.enable", session)
        self._call("Page.navigate", session, url=f"https://{ALLOWED_NAME}/page.html")
        self._await(lambda message: message.get("method") == "Page.loadEventFired")
        answer = self._call("Runtime.evaluate", session, expression=_TIMING, returnByValue=True)
        self._call("Target.disposeBrowserContext", browserContextId=context)
        found = answer["result"]["value"]
        if found["count"] != OBJECTS or found["protocols"] != ["h2"]:
            raise LoadError(f"Chromium loaded something else: {found}")
        return float(found["ms"])

    def _call(self, method: str, session: str | None = None, **parameters: object) -> dict[str, Any]:
        self._last += 1
        number = self._last
        message: dict[str, object] = {"id": number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        answer = self._await(lambda received: received.get("id") == number)
        if "error" in answer:
            raise LoadError(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    def _await(self, wanted: Any) -> dict[str, Any]:
        deadline = time.monotonic() + _DEADLINE
        while True:
            while b"\0" in self._received:
                line, _, self._received = self._received.partition(b"\0")
                message: dict[str, Any] = json.loads(line)
                if wanted(message):
                    return message
            ready, _, _ = select.select([self._in], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(self._in, 65536) if ready else b""
            if not data:
                raise LoadError(f"Chromium says nothing more: {self._service.last_words()}")
            self._received += data


def _pipe() -> tuple[int, int]:
    """A pipe whose descriptors are out of the way of 3 and 4."""
    ends = os.pipe()
    moved = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return moved[0], moved[1]
