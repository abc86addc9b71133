"""A steady stream of frames while a test breaks things, and which of the frames were lost."""

import threading
import time
from collections.abc import Sequence

from . import frames
from .network import Wires

PACE = 0.002
"""Seconds between two frames: a load that two processors carry easily."""
PATIENCE = 0.25
"""Seconds after which a frame counts as lost, unless it comes late."""
LATEST = 5.0
"""Seconds that `expect_no_loss` waits for frames that may be late, as on a busy machine."""

ETHERTYPE = 0x9000


class Stream:
    """Sends one frame after the other into a port, and notes which do not come out of all `outs`.

    While the stream runs, only the stream may read the ports of `outs`.  It ignores other frames
    that come out of them.

    wires: the ports by number.
    port: where the frames go in; their source address is `frames.host_mac(port)`.
    outs: where each frame must come out; empty when that does not matter.
    dst: destination address; by default `frames.host_mac` of the first port of `outs`.
    pace: seconds between the arrival of a frame and the next frame.
    """

    def __init__(
        self, wires: Wires, port: int, outs: Sequence[int], dst: str = "", pace: float = PACE
    ) -> None:
        self.source = wires.ports[port]
        self.outs = {number: wires.ports[number] for number in outs}
        self.address = {"src": frames.host_mac(port), "dst": dst or frames.host_mac(outs[0])}
        self._pace = pace
        self.sent = 0
        self.lost: list[tuple[int, int]] = []
        """Number of the frame, and port where the frame has not come out."""
        self.arrived = dict.fromkeys(outs, time.monotonic())
        """When the last frame came out of each port (time.monotonic)."""
        self.gap = dict.fromkeys(outs, 0.0)
        """The longest time without a frame out of each port, in seconds."""
        self._ended = threading.Event()
        self._progress = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Stream":
        self.arrived = dict.fromkeys(self.outs, time.monotonic())
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop sending."""
        self._ended.set()
        self._thread.join()

    def wait_for_frames(self, count: int = 10, timeout: float = 10) -> None:
        """Return when `count` frames in a row have come out of all ports from now on.

        Fails after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        with self._progress:
            start = self.sent
            while True:
                first = max([start] + [number + 1 for number, _ in self.lost])
                if self.sent - first >= count:
                    return
                left = deadline - time.monotonic()
                assert left > 0 and self._progress.wait(left), (
                    f"no {count} frames in a row within {timeout:g} s; {self}"
                )

    def expect_no_loss(self) -> None:
        """Fail if frames were lost, or if none was sent.  A late frame is not lost."""
        assert self.sent > 0, "nothing was sent"
        deadline = time.monotonic() + LATEST
        with self._progress:
            while self.lost and self._thread.is_alive() and time.monotonic() < deadline:
                self._progress.wait(PATIENCE)
        for number in sorted({port for _, port in self.lost}):
            while any(port == number for _, port in self.lost) and time.monotonic() < deadline:
                frame = self.outs[number].receive(PATIENCE)
                if frame is not None:
                    self._came_late(number, frame)
        assert not self.lost, str(self)

    def __str__(self) -> str:
        ports = sorted({port for _, port in self.lost})
        return f"{self.sent} frames sent, {len(self.lost)} of them lost at {ports}, gaps {self.gap}"

    def _run(self) -> None:
        while not self._ended.wait(self._pace):
            frame = self._frame(self.sent)
            self.source.send(frame)
            deadline = time.monotonic() + PATIENCE
            lost = [number for number in self.outs if not self._wait(number, frame, deadline)]
            with self._progress:
                self.lost += [(self.sent, number) for number in lost]
                self.sent += 1
                self._progress.notify_all()

    def _frame(self, serial: int) -> bytes:
        payload = serial.to_bytes(8, "big")
        return frames.ethernet(ethertype=ETHERTYPE, payload=payload, **self.address)

    def _came_late(self, port: int, frame: bytes) -> None:
        """A frame that was not waited for has come out of a port: perhaps one that is missing."""
        with self._progress:
            self.lost = [
                (serial, missing)
                for serial, missing in self.lost
                if missing != port or self._frame(serial) != frame
            ]

    def _wait(self, number: int, frame: bytes, deadline: float) -> bool:
        while True:
            left = deadline - time.monotonic()
            got = self.outs[number].receive(max(left, 0))
            now = time.monotonic()
            if got == frame:
                self.gap[number] = max(self.gap[number], now - self.arrived[number])
                self.arrived[number] = now
                return True
            if got is not None and self.lost:
                self._came_late(number, got)
            if got is None and left <= 0:
                self.gap[number] = max(self.gap[number], now - self.arrived[number])
                return False
