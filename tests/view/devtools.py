"""A headless Chromium, driven through the DevTools protocol over a pair of pipes: no port, no further package."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import selectors
import shutil
import time
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium")
_OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
]
#: A browser that says nothing for so long is broken; seconds.
_PATIENCE = 60


def _high(fd: int) -> int:
    """The same open file, by a number that a shell's own redirections do not use."""
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(fd)
    return moved


class Browser:
    """One browser with one page. ``errors``: what its console complained of; ``requests``: what it asked for."""

    def __init__(self, directory: Path) -> None:
        assert CHROMIUM is not None
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        # The protocol is spoken on descriptors 3 and 4; ours are moved away from there first.
        theirs_in, theirs_out = _high(theirs_in), _high(theirs_out)
        (directory / "profile").mkdir()
        log, nothing = os.O_WRONLY | os.O_CREAT | os.O_APPEND, (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
        self._process = os.posix_spawn(
            CHROMIUM,
            [CHROMIUM, *_OPTIONS, f"--user-data-dir={directory / 'profile'}", "about:blank"],
            os.environ,
            file_actions=[
                nothing,
                (os.POSIX_SPAWN_OPEN, 1, str(directory / "chromium.log"), log, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
                (os.POSIX_SPAWN_DUP2, theirs_in, 3),
                (os.POSIX_SPAWN_DUP2, theirs_out, 4),
            ],
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._in, selectors.EVENT_READ)
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._loaded = False
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        """End it."""
        self.call("Browser.close")
        os.waitpid(self._process, 0)
        os.close(self._out)
        os.close(self._in)
        self._selector.close()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol and its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None and not method.startswith("Browser."):
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                result: dict[str, Any] = answer["result"]
                return result
            self._notice(answer)

    def _next(self) -> dict[str, Any]:
        end = time.monotonic() + _PATIENCE
        while b"\0" not in self._buffer:
            assert self._selector.select(max(0, end - time.monotonic())), "the browser does not answer"
            data = os.read(self._in, 1 << 20)
            assert data, "the browser is gone"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _notice(self, message: dict[str, Any]) -> None:
        method, what = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(what["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and what["type"] in ("error", "warning", "assert"):
            self.errors.append(json.dumps(what["args"]))
        elif method == "Log.entryAdded" and what["entry"]["level"] in ("error", "warning"):
            self.errors.append(json.dumps(what["entry"]))
        elif method == "Network.requestWillBeSent":
            self.requests.append(what["request"]["url"])
        elif method == "Page.loadEventFired":
            self._loaded = True

    def open(self, path: Path) -> None:
        """Load a file, until it is loaded."""
        self._loaded = False
        self.errors.clear()
        self.requests.clear()
        self.call("Page.navigate", url=path.as_uri())
        while not self._loaded:
            self._notice(self._next())

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page; a promise is waited for."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def settle(self) -> None:
        """Let the page draw what it wants to draw."""
        self.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def text(self, selector: str) -> str:
        """The text of the first element that matches, as a person sees it."""
        return str(self.run(f"document.querySelector({json.dumps(selector)}).innerText"))

    def press(self, key: str, *, shift: bool = False) -> None:
        """A key, pressed and released where the focus is."""
        event: dict[str, Any] = {"key": key, "modifiers": 8 if shift else 0}
        if len(key) == 1:
            event["text"] = key
        codes = {"End": 35, "Home": 36, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Tab": 9}
        codes |= {"Enter": 13, "Escape": 27, "PageUp": 33, "PageDown": 34}
        if key in codes:
            event["windowsVirtualKeyCode"] = codes[key]
        if key == "Enter":
            event["text"] = "\r"
        self.call("Input.dispatchKeyEvent", type="keyDown", **event)
        self.call("Input.dispatchKeyEvent", type="keyUp", **{k: v for k, v in event.items() if k != "text"})
        self.settle()

    def drag(self, *points: tuple[float, float]) -> None:
        """Press the mouse at the first point, move over the others, release at the last."""
        for number, (x, y) in enumerate(points):
            kind = "mouseMoved" if number else "mousePressed"
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)
        self.call("Input.dispatchMouseEvent", type="mouseReleased", x=points[-1][0], y=points[-1][1], button="left")
        self.settle()

    def click(self, selector: str) -> None:
        """The mouse on the middle of an element."""
        self.run(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'center'}})")
        x, y, width, height = self.box(selector)
        self.drag((x + width / 2, y + height / 2))

    def box(self, selector: str) -> tuple[float, float, float, float]:
        """x, y, width, height of an element in the window."""
        where = f"document.querySelector({json.dumps(selector)}).getBoundingClientRect()"
        x, y, width, height = self.run(f"(({{x, y, width, height}}) => [x, y, width, height])({where})")
        return x, y, width, height

    def window(self, width: int, height: int, *, dark: bool = False, mobile: bool = False) -> None:
        """Size and colour scheme."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.settle()

    def picture(self, path: Path) -> bytes:
        """A screenshot of the window."""
        data = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        path.write_bytes(data)
        return data
