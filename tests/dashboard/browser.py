"""A headless Chromium in the test's hand, by the WebDriver protocol (W3C) of its chromedriver."""

import base64
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from lab.namespaces import Namespace

DRIVER = "chromedriver"
BROWSER = "chromium"
MISSING = "needs Chromium: scripts/setup.sh installs it (Debian's chromium and chromium-driver)"

ARGUMENTS = [
    "--headless",
    "--no-sandbox",  # as root there is none
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-breakpad",
    "--hide-scrollbars",
]

TIMEOUT = 20.0
"""Seconds that a test waits for what the page must do."""

ROWS = "document.querySelectorAll('#flows tbody tr').length"
"""JavaScript: how many flows the page shows."""
FLOW_SHOWN = "document.querySelector('#flow').open && document.querySelector('#flow-copies li')"
"""JavaScript: whether it shows one flow with its copies."""


def installed() -> bool:
    """Whether there is a Chromium with its driver."""
    return shutil.which(DRIVER) is not None and shutil.which(BROWSER) is not None


def _free_port() -> int:
    # By itself it would take one, but not tell which where there is no IPv6.
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Browser:
    """One browser with one window.

    namespace: where it runs; nowhere else can it send anything.
    """

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.directory = tempfile.mkdtemp(prefix="lab-chromium-")
        self.log = os.path.join(self.directory, "chromedriver.log")
        port = namespace.call(_free_port)
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                namespace.command(DRIVER, f"--port={port}"),
                # What it keeps besides its profile goes there too.
                env=dict(os.environ, HOME=self.directory, TMPDIR=self.directory),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._session = ""
        try:
            self._wait_until_started()
            address = ("127.0.0.1", port)
            self._connection = http.client.HTTPConnection(*address, timeout=60)
            self._connection.sock = namespace.call(socket.create_connection, address, 60)
            options = {
                "binary": shutil.which(BROWSER),
                "args": [*ARGUMENTS, f"--user-data-dir={self.directory}/profile"],
            }
            started = self._request(
                "POST",
                "/session",
                capabilities={
                    "alwaysMatch": {
                        "goog:chromeOptions": options,
                        "goog:loggingPrefs": {"browser": "ALL"},
                    }
                },
            )
            self._session = "/session/" + started["sessionId"]
        except BaseException:
            self.close()
            raise

    def _wait_until_started(self) -> None:
        deadline = time.monotonic() + TIMEOUT
        said = ""
        while "started successfully" not in said:
            assert self.process.poll() is None, f"{DRIVER} has ended:\n{said}"
            assert time.monotonic() < deadline, f"{DRIVER} is not ready:\n{said}"
            time.sleep(0.02)
            said = Path(self.log).read_text(errors="replace")

    def _request(self, method: str, path: str, **body: Any) -> Any:
        content = json.dumps(body) if method == "POST" else None
        self._connection.request(
            method, self._session + path, content, {"Content-Type": "application/json"}
        )
        value = json.loads(self._connection.getresponse().read())["value"]
        if isinstance(value, dict) and "error" in value:
            raise AssertionError(f"{value['error']}: {value['message']}")
        return value

    def devtools(self, command: str, **parameters: Any) -> Any:
        """A command of the Chrome DevTools Protocol."""
        return self._request("POST", "/goog/cdp/execute", cmd=command, params=parameters)

    def open(self, url: str) -> None:
        """Go to a page, and forget what was said on its console before."""
        self._request("POST", "/url", url=url)

    def run(self, script: str, *arguments: Any) -> Any:
        """Return what a JavaScript function's body returns; arguments[0] and so on are its own."""
        return self._request("POST", "/execute/sync", script=script, args=list(arguments))

    def wait(self, expression: str, *arguments: Any, timeout: float = TIMEOUT) -> Any:
        """Return the value of a JavaScript expression when it is true."""
        deadline = time.monotonic() + timeout
        while True:
            value = self.run(f"return {expression};", *arguments)
            if value:
                return value
            assert time.monotonic() < deadline, (
                f"not within {timeout:g} s: {expression}\n{self.text('body')}\n{self.console()}"
            )
            time.sleep(0.02)

    def text(self, selector: str) -> str:
        """The text that is seen in the first element of this CSS selector."""
        return self.run("return document.querySelector(arguments[0]).innerText;", selector)

    def texts(self, selector: str) -> list[str]:
        """The same of all."""
        return self.run(
            "return Array.from(document.querySelectorAll(arguments[0]), e => e.innerText);",
            selector,
        )

    def _element(self, selector: str) -> str:
        found = self._request("POST", "/element", using="css selector", value=selector)
        return "/element/" + next(iter(found.values()))

    def click(self, selector: str) -> None:
        """Click on it as a user does: it must be seen, and nothing may cover it."""
        self._request("POST", self._element(selector) + "/click")

    def type(self, selector: str, text: str) -> None:
        """Type into a field in the place of what was there."""
        element = self._element(selector)
        self._request("POST", element + "/clear")
        self._request("POST", element + "/value", text=text)

    def back(self) -> None:
        """The browser's back button."""
        self._request("POST", "/back")

    def resize(self, width: int, height: int, scale: float = 1) -> None:
        """The size of the page in CSS pixels, and how many real ones each is."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )

    def prefer(self, scheme: str) -> None:
        """What the user prefers: "light" or "dark"."""
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.devtools("Emulation.setEmulatedMedia", features=features)

    def screenshot(self, path: Path, full: bool = False) -> None:
        """A PNG of what is seen, or of the whole page."""
        image = self.devtools("Page.captureScreenshot", captureBeyondViewport=full)["data"]
        path.write_bytes(base64.b64decode(image))

    def console(self) -> list[str]:
        """What was said on the console since the last call: errors, refused content."""
        return [entry["message"] for entry in self._request("POST", "/se/log", type="browser")]

    def close(self) -> None:
        """End it."""
        try:
            if self._session and self.process.poll() is None:
                self._request("DELETE", "")
        except (OSError, AssertionError, http.client.HTTPException):
            pass  # it is ended all the same
        finally:
            if hasattr(self, "_connection"):
                self._connection.close()
            with_children(self.process)
            shutil.rmtree(self.directory, ignore_errors=True)


def with_children(process: subprocess.Popen) -> None:
    """End a process that leads a group, and all of the group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def show(
    browser: Browser, url: str, size: tuple[int, int] = (1280, 900), scheme: str = "light"
) -> None:
    """Open the dashboard's page, and wait until it has something to show."""
    browser.resize(*size)
    browser.prefer(scheme)
    # To the same page with another fragment it would not go, but stay.
    browser.open("about:blank")
    browser.open(url + "/")
    browser.wait("document.querySelector('#live').textContent.startsWith('Live')")
