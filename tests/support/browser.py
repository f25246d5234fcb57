"""A headless Chromium, driven through its DevTools protocol over a pair of pipes."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_PATIENCE = 60  # seconds, for any answer: a busy machine is no failure


def find_chromium() -> str | None:
    """Return the path of a Chromium, None if there is none."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


class Browser:
    """One process with one tab.

    Attributes:
        complaints: What the console said since the page was opened, exceptions and what the
            Content-Security-Policy refused included.
        requests: The addresses that were asked for since then, `data:` left out.
    """

    def __init__(self, program: str, profile: Path) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._answers: dict[int, dict[str, Any]] = {}
        self._loaded: set[str] = set()
        self._count, self._buffer, self._session = 0, b"", ""
        read, self._out = os.pipe()
        self._in, write = os.pipe()
        options = (
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *("--no-first-run", "--disable-background-networking", "--hide-scrollbars"),
            *("--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"),
        )
        # Chromium reads commands from descriptor 3 and writes answers to 4
        shell = f'exec 3<&{read} 4>&{write}; exec "$0" "$@"'
        self._process = subprocess.Popen(
            ["bash", "-c", shell, program, *options],
            pass_fds=(read, write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read)
        os.close(write)

    def __enter__(self) -> Self:
        [page] = [t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page"]
        attached = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Page.setLifecycleEventsEnabled", enabled=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.wait(_PATIENCE)
        os.close(self._in)
        os.close(self._out)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:  # noqa: ANN401  (JSON)
        """Send a command, and return its answer."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        number = self._count
        self._wait(lambda: number in self._answers, method)
        answer = self._answers.pop(number)
        assert "error" not in answer, f"{method}: {answer.get('error')}"
        result: dict[str, Any] = answer["result"]
        return result

    def open(self, path: Path) -> None:
        """Load a page, and wait until it is there."""
        self.complaints.clear()
        self.requests.clear()
        loader = self.call("Page.navigate", url=path.resolve().as_uri())["loaderId"]
        self._wait(lambda: loader in self._loaded, f"loading {path}")

    def evaluate(self, expression: str) -> Any:  # noqa: ANN401  (JSON)
        """Return the value of a JavaScript expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def shape(self, width: int, height: int = 900) -> None:
        """Set the size of the window, CSS pixels; a narrow one is a phone's."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )

    def medium(self, scheme: str = "light", medium: str = "screen") -> None:
        """Set the preferred colours, "light" or "dark", and "screen" or "print"."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=medium, features=features)

    @contextmanager
    def without_scripts(self) -> Iterator[None]:
        """Keep pages that are opened now from running theirs."""
        self.call("Emulation.setScriptExecutionDisabled", value=True)
        yield
        self.call("Emulation.setScriptExecutionDisabled", value=False)

    def screenshot(self, *, whole: bool = True) -> bytes:
        """Return a PNG of the page, or of the window alone."""
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(answer["data"])

    def _wait(self, done: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + _PATIENCE
        while not done():
            ready, _, _ = select.select([self._in], [], [], max(0, end - time.monotonic()))
            assert ready, f"Chromium is silent: {what}"
            data = os.read(self._in, 1 << 20)
            assert data, f"Chromium has ended: {what}"
            *messages, self._buffer = (self._buffer + data).split(b"\0")
            for message in messages:
                self._take(json.loads(message))

    def _take(self, message: dict[str, Any]) -> None:
        if "id" in message:
            self._answers[message["id"]] = message
            return
        parameters = message.get("params", {})
        if message["method"] == "Page.lifecycleEvent" and parameters["name"] == "load":
            self._loaded.add(parameters["loaderId"])
        elif message["method"] == "Network.requestWillBeSent":
            address = parameters["request"]["url"]
            self.requests += [] if address.startswith("data:") else [address]
        elif message["method"] == "Log.entryAdded":
            self.complaints.append(parameters["entry"]["text"])
        elif message["method"] in {"Runtime.exceptionThrown", "Runtime.consoleAPICalled"}:
            self.complaints.append(json.dumps(parameters))
