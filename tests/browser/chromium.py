"""Headless Chromium, controlled over a pipe: open a page, use it, and take pictures of its parts.

DevTools protocol over descriptors 3 and 4: JSON messages, each ended by a zero byte. No port is opened. Every wait is bounded.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from tests import debian
from tests.timing import scaled

_ANSWER_S = 60.0
_STOP_S = 5.0
#: Descriptors that Chromium reads and writes, and the lowest number for their temporary copies.
_PIPE = (3, 4)
_HIGH = 100


class Chromium:
    """Context manager: a browser with one page, `width` pixels wide. `flags`: further options of the command line."""

    def __init__(self, width: int, height: int, *flags: str) -> None:
        self._flags = flags
        self._program = debian.installed("chromium", "chromium", "fonts-dejavu-core")
        self._size = (width, height)
        self._profile = Path(tempfile.mkdtemp(prefix="submilli-chromium-"))
        self._number = 0
        self._rest = b""
        self.complaints: list[str] = []  # errors of the page's scripts, and those in its console
        self.not_loaded: list[str] = []  # URLs of files that could not be loaded

    def __enter__(self) -> Chromium:
        ours, theirs = [], []
        for end in (os.pipe(), os.pipe()[::-1]):  # Chromium's input and output
            theirs.append(fcntl.fcntl(end[0], fcntl.F_DUPFD, _HIGH))
            os.close(end[0])
            ours.append(end[1])
        self._out, self._in = ours

        def place() -> None:
            for number, descriptor in zip(_PIPE, theirs, strict=True):
                os.dup2(descriptor, number)

        self._process = subprocess.Popen(
            [
                self._program,
                "--headless=new",
                "--remote-debugging-pipe",
                f"--user-data-dir={self._profile}",
                "--window-size={},{}".format(*self._size),
                *("--no-first-run", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage"),
                *(["--no-sandbox"] if os.geteuid() == 0 else []),  # as root, Chromium refuses to run with its sandbox
                *self._flags,
                "about:blank",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=place,
            pass_fds=_PIPE,
            process_group=0,
        )
        for descriptor in theirs:
            os.close(descriptor)
        pages = [one for one in self._call("Target.getTargets")["targetInfos"] if one["type"] == "page"]
        attached = self._call("Target.attachToTarget", targetId=pages[0]["targetId"], flatten=True)
        self._session: str = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._call_page(f"{domain}.enable")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self._call("Browser.close")
            self._process.wait(scaled(_STOP_S))
        except (subprocess.TimeoutExpired, AssertionError):
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        os.close(self._out)
        os.close(self._in)
        shutil.rmtree(self._profile, ignore_errors=True)

    def open(self, page: Path) -> None:
        """Load a page from a file and wait until it is complete."""
        self.go_to(page.resolve().as_uri())

    def go_to(self, url: str) -> None:
        """Load a page and wait until it is complete."""
        self._call_page("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def click(self, element_id: str) -> None:
        """Click an element, as a person would: what needs a gesture is permitted."""
        self._call_page("Runtime.evaluate", expression=f"document.getElementById('{element_id}').click()", userGesture=True)

    def until(self, expression: str, timeout_s: float = 30.0) -> None:
        """Wait until an expression is true in the page."""
        until_s = time.monotonic() + scaled(timeout_s)
        while not self.value(expression):
            assert time.monotonic() < until_s, f"{expression} is still false; the page's errors: {self.complaints}"
            time.sleep(0.05)

    def value(self, expression: str) -> Any:
        """Return the value of an expression in the page."""
        return self._call_page("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)["result"].get(
            "value"
        )

    def box(self, element_id: str) -> tuple[float, float, float, float]:
        """Return the position of an element on the page: left, top, right, bottom."""
        left, top, width, height = json.loads(
            self.value(
                f"(({{x, y, width, height}}) => JSON.stringify([x + scrollX, y + scrollY, width, height]))"
                f"(document.getElementById('{element_id}').getBoundingClientRect())"
            )
        )
        return left, top, left + width, top + height

    def picture(self, box: tuple[float, float, float, float]) -> bytes:
        """Return a part of the page as PNG."""
        left, top, right, bottom = box
        clip = {"x": left, "y": top, "width": right - left, "height": bottom - top, "scale": 1}
        taken = self._call_page("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        return base64.b64decode(taken["data"])

    def _call_page(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._call(method, self._session, **parameters)

    def _call(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        self._number += 1
        order = {"id": self._number, "method": method, "params": parameters, **({"sessionId": session} if session else {})}
        os.write(self._out, json.dumps(order).encode() + b"\0")
        until_s = time.monotonic() + scaled(_ANSWER_S)
        while True:
            message = self._next(until_s)
            if message.get("id") == self._number:
                assert "error" not in message, f"{method}: {message['error']}"
                result: dict[str, Any] = message["result"]
                return result
            self._on_event(message.get("method", ""), message.get("params", {}))

    def _on_event(self, kind: str, parameters: dict[str, Any]) -> None:
        if kind == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description", details["text"]))
        elif kind == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            entry = parameters["entry"]
            if entry["source"] == "network":
                self.not_loaded.append(entry.get("url", ""))
            else:
                self.complaints.append(entry["text"])
        elif kind == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "assert"):
            self.complaints.append(" ".join(str(one.get("value", one.get("description"))) for one in parameters["args"]))

    def _next(self, until_s: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], max(0.0, until_s - time.monotonic()))
            assert ready, "Chromium does not answer"
            more = os.read(self._in, 1 << 20)
            assert more, "Chromium closed the pipe"
            self._rest += more
        message, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found
