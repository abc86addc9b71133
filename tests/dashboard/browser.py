"""A headless Chromium that a test controls through chromedriver's WebDriver protocol (W3C)."""

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
    "--no-sandbox",  # the sandbox does not work as root
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
"""Seconds that a test waits for the page to do something."""

ROWS = "document.querySelectorAll('#flows tbody tr').length"
"""JavaScript: how many flows the page shows."""
FLOW_SHOWN = "document.querySelector('#flow').open && document.querySelector('#flow-copies li')"
"""JavaScript: whether the page shows one flow with its copies."""


def installed() -> bool:
    """Whether there is a Chromium with its driver."""
    return shutil.which(DRIVER) is not None and shutil.which(BROWSER) is not None


def _free_port() -> int:
    # chromedriver could choose a free port by itself, but where there is no IPv6 it does not say
    # which.
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Browser:
    """One browser with one window.

    namespace: the network namespace in which it runs. It reaches no other network.
    """

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.directory = tempfile.mkdtemp(prefix="lab-chromium-")
        self.log = os.path.join(self.directory, "chromedriver.log")
        port = namespace.call(_free_port)
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                namespace.command(DRIVER, f"--port={port}"),
                # Chromium writes more than its profile; those files go to the same directory.
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
        """Send a command of the Chrome DevTools Protocol; return its result."""
        return self._request("POST", "/goog/cdp/execute", cmd=command, params=parameters)

    def open(self, url: str) -> None:
        """Go to a page, and forget what its console has shown before."""
        self._request("POST", "/url", url=url)

    def run(self, script: str, *arguments: Any) -> Any:
        """Run the body of a JavaScript function and return its result. The body reads arguments[0]
        and so on.
        """
        return self._request("POST", "/execute/sync", script=script, args=list(arguments))

    def wait(self, expression: str, *arguments: Any, timeout: float = TIMEOUT) -> Any:
        """Wait until a JavaScript expression is true; return its value."""
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
        """Return the visible text of the first element that a CSS selector selects."""
        return self.run("return document.querySelector(arguments[0]).innerText;", selector)

    def texts(self, selector: str) -> list[str]:
        """Return the visible text of every element that a CSS selector selects."""
        return self.run(
            "return Array.from(document.querySelectorAll(arguments[0]), e => e.innerText);",
            selector,
        )

    def _element(self, selector: str) -> str:
        found = self._request("POST", "/element", using="css selector", value=selector)
        return "/element/" + next(iter(found.values()))

    def click(self, selector: str) -> None:
        """Click on an element as a user does: it must be visible, and nothing may cover it."""
        self._request("POST", self._element(selector) + "/click")

    def type(self, selector: str, text: str) -> None:
        """Replace the text of an input field."""
        element = self._element(selector)
        self._request("POST", element + "/clear")
        self._request("POST", element + "/value", text=text)

    def back(self) -> None:
        """Press the browser's back button."""
        self._request("POST", "/back")

    def resize(self, width: int, height: int, scale: float = 1) -> None:
        """Set the size of the page in CSS pixels, and the number of device pixels for each."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )

    def prefer(self, scheme: str) -> None:
        """Set the colour scheme that the user prefers: "light" or "dark"."""
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.devtools("Emulation.setEmulatedMedia", features=features)

    def screenshot(self, path: Path, full: bool = False) -> None:
        """Write a PNG of the visible part, or of the whole page."""
        image = self.devtools("Page.captureScreenshot", captureBeyondViewport=full)["data"]
        path.write_bytes(base64.b64decode(image))

    def console(self) -> list[str]:
        """Return the messages on the console since the last call: errors and blocked content."""
        return [entry["message"] for entry in self._request("POST", "/se/log", type="browser")]

    def close(self) -> None:
        """End the browser and its driver."""
        try:
            if self._session and self.process.poll() is None:
                self._request("DELETE", "")
        except (OSError, AssertionError, http.client.HTTPException):
            pass  # the driver's process is killed below in any case
        finally:
            if hasattr(self, "_connection"):
                self._connection.close()
            with_children(self.process)
            shutil.rmtree(self.directory, ignore_errors=True)


def with_children(process: subprocess.Popen) -> None:
    """Kill a process that leads a process group, and the whole group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def show(
    browser: Browser, url: str, size: tuple[int, int] = (1280, 900), scheme: str = "light"
) -> None:
    """Open the dashboard's page, and wait until it shows data."""
    browser.resize(*size)
    browser.prefer(scheme)
    # A URL that differs only in its fragment would not load the page again.
    browser.open("about:blank")
    browser.open(url + "/")
    browser.wait("document.querySelector('#live').textContent.startsWith('Live')")
