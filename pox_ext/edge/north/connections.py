"""
Connections to OpenFlow 1.0 controllers, as a switch has them.

Bytes and their order: framing, the hello, and the barrier, behind which a controller's messages
wait.  What the messages mean is northbound.py's.
"""

import contextlib
import errno
import logging
import os
import socket
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, Callable, Optional

import pox.openflow.libopenflow_01 as of
from pox.core import core
from pox.lib.recoco import Select, Sleep, Task

from edge.openflow import nicira as nx
from edge.openflow.errors import OpenFlowError
from edge.poxfixes import Outbox, Serve, end_of_turn, run_in_slices

log = logging.getLogger("edge.upstream")

# Some 200 flow-mods: so long others have to wait for their turn.
_READ = 1 << 14
_ACCEPTED_AT_ONCE = 16
_QUICKACK = getattr(socket, "TCP_QUICKACK", None)  # Linux has it
_PATIENCE = _READ  # bytes read ahead while a barrier is waited for: all handled in one turn then
_MOST_WITHHELD = 1 << 20  # bytes that wait for an answer which has been overtaken
_SHORT_WHILE = 0.005  # seconds
_HELLO = struct.pack("!BBHL", of.OFP_VERSION, of.OFPT_HELLO, 8, 0)
_VERSIONS_WITH_ERRORS = range(1, 7)  # whose error messages look like those of OpenFlow 1.0
# What is done also for one that has gone before its turn came: the rest only answers.
_CHANGES = frozenset((of.OFPT_SET_CONFIG, of.OFPT_PACKET_OUT, of.OFPT_FLOW_MOD, of.OFPT_PORT_MOD))
_ECHO_INTERVAL, _ECHO_TIMEOUT = 5.0, 5.0  # seconds, Open vSwitch's


class Peer:
    """
    One OpenFlow connection to a controller.

    handle: is called with the peer and each whole message after the hello; raises OpenFlowError to
        have it answered with that error, and returns False to be called with it again when the
        peer, which is held, is released.  One of another version is answered here, if handle does
        not have it wait
    service: True for somebody who has connected to us, such as ovs-ofctl.  As with Open vSwitch,
        they get no asynchronous messages unless they ask for them by setting a miss_send_len.
    miss_send_len: as this controller has set it (OpenFlow 1.0.0, 5.3.2)
    role: its Nicira role
    """

    def __init__(
        self,
        sock: socket.socket,
        name: str,
        handle: Callable[["Peer", bytes], Optional[bool]],
        service: bool = False,
    ) -> None:
        self.sock = sock
        self.name = name
        self.service = service
        self.miss_send_len = 0 if service else of.OFP_DEFAULT_MISS_SEND_LEN
        self.role = nx.NX_ROLE_OTHER
        self.greeted = False
        self.closed = False
        self.heard = 0.0
        self._handle = handle
        self._received = b""
        self._held = False
        self._overtake: Optional[Callable[[bytes], bool]] = None
        self._withheld: Optional[list[bytes]] = None  # None while nothing has overtaken
        self._withheld_octets = 0
        self._processing = False
        self._outbox = Outbox(sock, self.close)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.send(_HELLO)

    def __str__(self) -> str:
        return self.name

    def send(self, data: bytes) -> None:
        """Send whole messages; without effect once the connection is closed."""
        self._outbox.send(data)

    def close(self, reason: str = "closed") -> None:
        """Close the connection."""
        if not self.closed:
            self.closed = True
            level = logging.DEBUG if self.service else logging.INFO
            log.log(level, "%s: connection closed: %s", self, reason)
            self._outbox.flush()
            self._outbox.close()
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)

    def _wants(self, kind: int) -> bool:
        """True if it gets asynchronous messages of this type."""
        if not self.greeted or (self.service and not self.miss_send_len):
            return False
        return self.role != nx.NX_ROLE_SLAVE or kind == of.OFPT_PORT_STATUS

    def tell(self, kind: int, message: bytes) -> None:
        """
        Send an asynchronous message of this type, if it gets such messages.

        When something has overtaken the answer that is waited for, it may be what comes of that: so
        it is sent behind the answer, unless that takes so long that there is too much.
        """
        if not self._wants(kind):
            return
        if self._withheld is None:
            self.send(message)
            return
        self._withheld.append(message)
        self._withheld_octets += len(message)
        if self._withheld_octets > _MOST_WITHHELD:
            self._overtake = None  # nothing more overtakes
            self._tell_withheld()

    def _tell_withheld(self) -> None:
        withheld, self._withheld = self._withheld, None
        self._withheld_octets = 0
        for message in withheld or ():
            self.send(message)

    def hold(self, overtake: Optional[Callable[[bytes], bool]] = None) -> None:
        """
        Handle no more messages until release(): an answer is waited for.

        overtake: does what a message says that need not wait, and returns whether it was one; the
            first that is none has to wait, and so all behind it
        """
        self._held = True
        self._overtake = overtake

    def answer(self, messages: Iterable[bytes]) -> None:
        """
        Send the messages that were waited for since hold(), and go on.

        An empty one stands for a pause: the rest is made and sent after the turns of others.
        """
        run_in_slices(self._answering(messages))

    def _answering(self, messages: Iterable[bytes]) -> Iterator[None]:
        try:
            for message in messages:
                if self.closed:
                    break
                if message:
                    self.send(message)
                else:
                    yield
        except Exception:
            self.release()
            raise
        self.release()

    def release(self) -> None:
        """Go on with the messages that have come meanwhile."""
        self._let_go()
        if not self._processing:
            self._process()

    def _let_go(self) -> None:
        self._held = False
        self._overtake = None
        self._tell_withheld()

    @property
    def wants_more(self) -> bool:
        """False while enough waits behind a barrier."""
        return not self._held or len(self._received) < _PATIENCE

    def read(self) -> bool:
        """Read what there is, and handle it; False if no more is to be read now."""
        try:
            data = self.sock.recv(_READ)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError as e:
            self.close(e.strerror or str(e))
            return False
        if not data:
            self.close("by the controller")
            return False
        self.heard = time.monotonic()
        self._received = self._received + data if self._received else data
        self._process()
        if _QUICKACK is not None:
            end_of_turn(self._acknowledge)
        return not self.closed and self.wants_more

    def _acknowledge(self) -> None:
        """
        A controller without TCP_NODELAY, such as POX, holds its next message back until the last
        is acknowledged, which would take 40 ms.  What it asked for is on its way by now.
        """
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)

    def _process(self) -> None:
        buffer, offset = self._received, 0
        available = len(buffer)
        self._processing = True
        while available - offset >= 8 and (not self._held or self._overtake is not None):
            length = buffer[offset + 2] << 8 | buffer[offset + 3]
            if length < 8 and self._held:
                break  # what is before it is answered first
            if length < 8:
                self.close("a message that claims less than its header's length")
                break
            if available - offset < length:
                break
            message = buffer[offset : offset + length]
            if self._held:
                if not self._overtakes(message):
                    break
                offset += length
            elif (self.closed and message[1] not in _CHANGES) or self._message(message):
                offset += length
        self._processing = False
        if offset:
            self._received = buffer[offset:]

    def _overtakes(self, message: bytes) -> bool:
        try:
            overtakes = self._overtake(message)
        except Exception as e:  # when it is its turn, it is seen what is wrong with it
            log.debug("%s: %s: %s", self, type(e).__name__, e, exc_info=True)
            return False
        if overtakes and self._held and self._withheld is None:
            self._withheld = []
        return overtakes

    def _message(self, message: bytes) -> bool:
        """False if it has to be handled again."""
        version, kind = message[0], message[1]
        try:
            if not self.greeted:
                self._greeting(version, kind, message)
            elif self._handle(self, message) is False:
                return False
            elif version != of.OFP_VERSION:
                self._other_version(version, kind, message)
        except OpenFlowError as e:
            log.debug("%s: refused message type %d: %s", self, kind, e)
            self.send(e.reply(message))
        except Exception as e:
            # A mistake of ours must not cost more than this message.
            log.error("%s: cannot handle message type %d: %s: %s", self, kind, type(e).__name__, e)
            log.debug("Details:", exc_info=True)
            self._let_go()
            self.send(OpenFlowError(of.OFPET_BAD_REQUEST, of.OFPBRC_EPERM).reply(message))
        return True

    def _greeting(self, version: int, kind: int, message: bytes) -> None:
        if kind != of.OFPT_HELLO or version == 0:
            self.close("its first message is no hello")
            return
        theirs = _version_bitmap(message)
        if theirs and not theirs & 1 << of.OFP_VERSION:
            text = (
                f"We support version 0x01, you support version 0x{theirs.bit_length() - 1:02x}, "
                "no common versions."
            )
            self.send(
                struct.pack(
                    "!BBHLHH",
                    theirs.bit_length() - 1,
                    of.OFPT_ERROR,
                    12 + len(text),
                    0,
                    of.OFPET_HELLO_FAILED,
                    of.OFPHFC_INCOMPATIBLE,
                )
                + text.encode()
            )
            self.close("it does not speak OpenFlow 1.0")
            return
        self.greeted = True
        log.log(logging.DEBUG if self.service else logging.INFO, "%s: connected", self)

    def _other_version(self, version: int, kind: int, message: bytes) -> None:
        """What Open vSwitch says to a message of another version than was agreed on."""
        if kind == of.OFPT_ECHO_REQUEST and version:
            self.send(message[:1] + bytes([of.OFPT_ECHO_REPLY]) + message[2:])
            return
        known = version in _VERSIONS_WITH_ERRORS
        code = of.OFPBRC_BAD_VERSION
        if kind == of.OFPT_ECHO_REPLY and version:
            return
        is_error = kind == of.OFPT_ERROR and len(message) >= 12
        if version and (is_error or kind == of.OFPT_HELLO):
            code = of.OFPBRC_BAD_TYPE
        error = OpenFlowError(of.OFPET_BAD_REQUEST, code)
        self.send(error.reply(message, version if known else of.OFP_VERSION))


def _version_bitmap(hello: bytes) -> Optional[int]:
    """The versions in a hello's OFPHET_VERSIONBITMAP element, None if it has none."""
    offset = 8
    while offset + 4 <= len(hello):
        kind, length = struct.unpack_from("!HH", hello, offset)
        if length < 4 or offset + length > len(hello):
            return None
        if kind == 1 and length >= 8:
            return int.from_bytes(hello[offset + 4 : offset + 8], "big")
        offset += -(-length // 8) * 8
    return None


class Controller(Task):
    """
    Keeps a connection to one controller: connects, serves, and connects again.

    address: its host name or IP, and its TCP port
    max_retry_delay: the longest time between two attempts, in seconds; they start at one second
        and double
    opened, closed: are called with the Peer when it is connected (before any message), and when
        it is not any more
    """

    def __init__(
        self,
        address: tuple[str, int],
        max_retry_delay: float,
        handle: Callable[[Peer, bytes], Optional[bool]],
        opened: Callable[[Peer], None],
        closed: Callable[[Peer], None],
    ) -> None:
        super().__init__()
        self.address = address
        self.peer: Optional[Peer] = None
        self._max_retry_delay = max_retry_delay
        self._handle = handle
        self._opened = opened
        self._closed = closed

    def __str__(self) -> str:
        return f"controller {self.address[0]}:{self.address[1]}"

    def run(self) -> Any:
        delay = 1.0
        complained = False
        while core.running:
            address = yield from _resolved(self.address)
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            sock.setblocking(False)
            problem = sock.connect_ex(address) if address else errno.EHOSTUNREACH
            if problem == errno.EINPROGRESS:
                yield Select([], [sock], [sock], 5.0)
                problem = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if not problem and not _is_connected(sock):
                    problem = errno.ETIMEDOUT
            if problem:
                if not complained:
                    log.info(
                        "%s: cannot connect (%s); trying again, at least every %g s",
                        self,
                        os.strerror(problem),
                        self._max_retry_delay,
                    )
                    complained = True
            else:
                peer = self.peer = Peer(sock, str(self), self._handle)
                self._opened(peer)
                # As in Open vSwitch, a slow one gets more time with every attempt.
                yield from serve(peer, hello_timeout=delay)
                self.peer = None
                self._closed(peer)
                if peer.greeted:
                    delay = 1.0
                complained = False
            sock.close()
            yield Sleep(delay)
            delay = min(delay * 2, self._max_retry_delay)


class Listener(Task):
    """
    Accepts OpenFlow connections, as a bridge's management port does (ptcp: in Open vSwitch).

    address: the local IP and the TCP port.  Raises OSError if one cannot listen there.
    handle, opened, closed: see Controller
    """

    def __init__(
        self,
        address: tuple[str, int],
        handle: Callable[[Peer, bytes], Optional[bool]],
        opened: Callable[[Peer], None],
        closed: Callable[[Peer], None],
    ) -> None:
        super().__init__()
        self._handle = handle
        self._opened = opened
        self._closed = closed
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._sock.bind(address)
            self._sock.listen(128)
        except BaseException:
            self._sock.close()
            raise
        self._sock.setblocking(False)
        log.info("Listening for OpenFlow connections on %s:%d", *self._sock.getsockname())

    def run(self) -> Any:
        complained = False
        while core.running:
            yield Select([self._sock], [], [], 5.0)
            try:
                for _ in range(_ACCEPTED_AT_ONCE):
                    sock, (host, port) = self._sock.accept()
                    complained = False
                    peer = Peer(sock, f"client {host}:{port}", self._handle, service=True)
                    _Client(peer, self._opened, self._closed).start()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                continue
            except OSError as e:  # no descriptors left, or no memory
                if not complained:
                    log.error("Cannot accept an OpenFlow connection: %s", e)
                complained = True
                yield Sleep(1.0)


class _Client(Task):
    """Serves one that has connected to a Listener."""

    def __init__(
        self, peer: Peer, opened: Callable[[Peer], None], closed: Callable[[Peer], None]
    ) -> None:
        super().__init__()
        self._peer = peer
        self._opened = opened
        self._closed = closed

    def run(self) -> Any:
        self._opened(self._peer)
        yield from serve(self._peer)
        self._closed(self._peer)
        self._peer.sock.close()


def serve(peer: Peer, hello_timeout: float = _ECHO_INTERVAL + _ECHO_TIMEOUT) -> Any:
    """
    Read a peer's messages until its connection is closed (to be delegated to by a Task).

    A controller that has not said anything for _ECHO_INTERVAL is asked for an echo, and given up
    after _ECHO_TIMEOUT more.  One that has not greeted within hello_timeout seconds is given up.
    """
    peer.heard = asked = time.monotonic()
    while core.running and not peer.closed:
        if not peer.wants_more:
            yield Sleep(_SHORT_WHILE)
            peer.heard = time.monotonic()  # nobody listens, so this is no silence
            continue
        yield Serve(peer.sock, peer.read, 1.0)
        silence = time.monotonic() - peer.heard
        if not peer.greeted:
            if silence > hello_timeout:
                peer.close("no hello")
        elif silence > _ECHO_INTERVAL + _ECHO_TIMEOUT:
            peer.close("no answer to an echo request")
        elif silence > _ECHO_INTERVAL and asked <= peer.heard:
            asked = time.monotonic()
            peer.send(struct.pack("!BBHL", of.OFP_VERSION, of.OFPT_ECHO_REQUEST, 8, 0))
    peer.close("POX ends")


def _resolved(address: tuple[str, int]) -> Any:
    """
    The address with an IP for the host's name, None if it has none (to be delegated to by a Task).

    A name server may take its time: a thread waits for it.
    """
    host, port = address
    with contextlib.suppress(OSError):
        socket.inet_aton(host)
        return address
    found: list[str] = []

    def resolve() -> None:
        with contextlib.suppress(OSError, UnicodeError):
            found.append(socket.gethostbyname(host))

    thread = threading.Thread(target=resolve, daemon=True)
    thread.start()
    while thread.is_alive():
        yield Sleep(0.05)
    return (found[0], port) if found else None


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
        return True
    except OSError:
        return False
