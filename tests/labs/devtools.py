"""Chromium driven over its own debugging pipe: pages as a person sees and uses them, without any other program."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from labs.netns import Namespace, run
from labs.origin import ADDRESSES, Origin, fingerprint
from labs.waiting import until

_FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars"),
    "--disable-features=HttpsUpgrades,HttpsFirstBalancedMode,OptimizationHints,MediaRouter",
    *("--remote-debugging-pipe", "about:blank"),
)


class Tab:
    """A tab. Messages of the protocol end in a NUL; events are kept in `events`."""

    def __init__(self, reading: int, writing: int) -> None:
        self._from = os.fdopen(reading, "rb", buffering=0)
        self._to = os.fdopen(writing, "wb", buffering=0)
        self._rest = b""
        self._number = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask, and wait for the answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer)
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def open(self, url: str) -> None:
        """Go somewhere, and wait until the page has loaded."""
        error = self.error(url)
        assert not error, (url, error)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def error(self, url: str) -> str:
        """Go somewhere; the network's error, where no page comes."""
        self.events.clear()
        return str(self.call("Page.navigate", url=url).get("errorText", "")).removeprefix("net::")

    def run(self, script: str) -> Any:
        """The value of an expression in the page; promises are waited for."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, (script, answer)
        return answer["result"].get("value")

    def wait(self, condition: str) -> None:
        """Until an expression is true in the page."""

        def holds() -> bool:
            with contextlib.suppress(AssertionError):  # between two pages there is none to ask
                return bool(self.run(condition))
            return False

        try:
            until(condition, holds)
        except AssertionError as error:
            raise AssertionError(self.text[:2000]) from error

    @property
    def text(self) -> str:
        """What can be read on the page."""
        return str(self.run("document.body.innerText"))

    def follow(self, selector: str) -> None:
        """Click a link or a button, and wait for the page that it leads to."""
        click = "dispatchEvent(new MouseEvent('click', {bubbles: true, cancelable: true}))"
        with self.leaving():
            self.run(f"document.querySelector({json.dumps(selector)}).{click}")

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press a key and let it go; `text` is what it types."""
        for kind in ("keyDown" if text else "rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, text=text, windowsVirtualKeyCode=code)

    def click(self, selector: str) -> None:
        """Press the mouse on the middle of what can be seen of an element, and wait for the page that it leads to."""
        found = f"document.querySelector({json.dumps(selector)})"
        self.run(f"{found}.scrollIntoView()")
        x, y = self.run(f"(r => [r.x + r.width / 2, r.y + r.height / 2])({found}.getBoundingClientRect())")
        with self.leaving():
            for kind in ("mousePressed", "mouseReleased"):
                self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    @contextlib.contextmanager
    def leaving(self) -> Iterator[None]:
        """Do what leads to another page, and wait for that."""
        before = self.run("performance.timeOrigin")
        yield
        self.wait(f"performance.timeOrigin !== {before} && document.readyState === 'complete'")

    def send_form(self, url: str, **fields: str) -> None:
        """Have the page that is shown send a form elsewhere, as a hostile one would."""
        script = """((url, fields) => {
          const form = Object.assign(document.createElement('form'), {method: 'post', action: url});
          for (const [name, value] of Object.entries(fields))
            form.append(Object.assign(document.createElement('input'), {name, value}));
          document.body.append(form);
          form.submit();
        })"""
        with self.leaving():
            self.run(f"{script}({json.dumps(url)}, {json.dumps(fields)})")

    @property
    def document(self) -> dict[str, Any]:
        """The response that the page came with, as `Network.Response`."""
        documents: list[dict[str, Any]] = [
            event["params"]["response"]
            for event in self.events
            if event.get("method") == "Network.responseReceived" and event["params"]["type"] == "Document"
        ]
        return documents[-1]

    @property
    def status(self) -> int:
        return int(self.document["status"])

    @property
    def certificate(self) -> str:
        """The fingerprint of the certificate that the page's origin showed."""
        chain = self.call("Network.getCertificate", origin=self.run("location.origin"))["tableNames"]
        return fingerprint(base64.b64decode(chain[0]))

    def size(self, width: int, height: int, *, dark: bool = False, mobile: bool = False) -> None:
        """The window, and what its user prefers."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def scripts(self, allowed: bool) -> None:
        """Let pages run scripts, or not."""
        self.call("Emulation.setScriptExecutionDisabled", value=not allowed)

    def picture(self, path: Path, height: int = 4000) -> None:
        """A picture of the page down to a height."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], height), "scale": 1}
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"]
        path.write_bytes(base64.b64decode(data))

    def complaints(self) -> list[str]:
        """What the browser holds against the page: scripts and styles that were refused, errors, exceptions."""
        self.run("0")
        found = []
        for event in self.events:
            if event.get("method") == "Log.entryAdded":
                found.append(event["params"]["entry"]["text"])
            elif event.get("method") in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
                found.append(json.dumps(event["params"]))
        return found

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            chunk = self._from.read(1 << 16)
            assert chunk, "the browser is gone"
            self._rest += chunk
        message, _, self._rest = self._rest.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer

    def close(self) -> None:
        """Let go of the pipe, which ends the browser."""
        self._to.close()
        self._from.close()


@contextlib.contextmanager
def profile(*authorities: Path) -> Iterator[Path]:
    """A home folder for Chromium, in which these authorities are trusted."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        store = home / ".pki/nssdb"
        store.mkdir(parents=True)
        run("certutil", "-N", "-d", f"sql:{store}", "--empty-password")
        for number, authority in enumerate(authorities):
            run(
                *("certutil", "-A", "-d", f"sql:{store}", "-n", f"authority {number}"),
                *("-t", "C,,", "-i", authority),
            )
        yield home


def forced_to_quic(origin: Origin, *names: str) -> tuple[str, str]:
    """What binds Chromium to HTTP/3 for names."""
    places, pins = (",".join(each) for each in ([f"{n}:443" for n in names], [origin.pins[n] for n in names]))
    return f"--origin-to-force-quic-on={places}", f"--ignore-certificate-errors-spki-list={pins}"


@contextlib.contextmanager
def tab(
    *flags: str, namespace: Namespace | None = None, authorities: Sequence[Path] = (), family: int = 4
) -> Iterator[Tab]:
    """A tab of a Chromium with a fresh profile that trusts these authorities, which ends with the block.

    In a namespace of the laboratory it finds the laboratory's names, at their addresses of one family, and no others.
    """
    if namespace is not None:
        places = {name: addresses[family] for name, addresses in ADDRESSES.items()}
        rules = [f"MAP {name} {f'[{at}]' if family == 6 else at}" for name, at in places.items()]
        flags += (f"--host-resolver-rules={', '.join(rules)}, MAP * ~NOTFOUND",)
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    with profile(*authorities) as home:
        command = ["bash", "-c", f'exec chromium "$@" 3<&{theirs_in} 4>&{theirs_out}', "chromium", *_FLAGS, *flags,
                   f"--user-data-dir={home}/profile"]  # fmt: skip
        running = subprocess.Popen(
            command if namespace is None else namespace.command(*command),
            pass_fds=(theirs_in, theirs_out), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={"HOME": str(home), "TMPDIR": str(home), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LANG": "C.UTF-8"},
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        opened = Tab(ours_in, ours_out)
        try:
            yield opened
        finally:
            opened.close()
            running.terminate()
            running.wait(30)
