"""A connection to a controller: its messages, the hello, and what waits for a barrier."""

import struct
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab import openflow10 as of

from edge import poxfixes
from edge.north import connections
from edge.north.connections import ControllerConnection
from edge.openflow.errors import OpenFlowError
from edge.poxfixes import ioworkers
from edge.poxfixes.outbox import ROOM

HELLO = of.message(of.Type.HELLO)


class Socket:
    """Our socket of a connection. The test sets what recv() returns."""

    def __init__(self):
        self.coming = []
        self.shut = False

    def recv(self, _size):
        if not self.coming:
            raise BlockingIOError
        data = self.coming.pop(0)
        if isinstance(data, OSError):
            raise data
        return data

    def shutdown(self, _how):
        self.shut = True

    def setblocking(self, _blocking):
        pass

    def setsockopt(self, *_option):
        pass

    def getpeername(self):
        raise OSError("it has gone already")


class Sent:
    """Stands in for the Outbox, which needs a running POX.

    blocked: set by the test; if true, the controller reads nothing until it calls read().
    """

    unacknowledged = 0

    def __init__(self, _sock, _failed):
        self.data = b""
        self.closed = self.blocked = False
        self.taken = 0
        self.backlog = 0  # what the kernel has not taken; also set by the test
        self._awaited = []

    @property
    def end(self):
        return self.taken + self.backlog

    @property
    def stuck(self):
        return self.backlog

    def send(self, data):
        if not self.closed:
            self.data += data
            if self.blocked:
                self.backlog += len(data)
            else:
                self.taken += len(data)

    def read(self, octets):
        """The controller reads so many of the bytes that wait."""
        octets = min(octets, self.backlog)
        self.taken += octets
        self.backlog -= octets
        self.blocked = self.backlog > 0
        self._call_back()

    def when_taken(self, octets, callback):
        self._awaited.append((octets, callback))

    def when_room(self, callback):
        self.when_taken(self.end - ROOM, callback)

    def _call_back(self):
        awaited, self._awaited = self._awaited, []
        for octets, callback in awaited:
            if octets <= self.taken or self.closed:
                callback()
            else:
                self.when_taken(octets, callback)

    def flush(self):
        pass

    def close(self):
        self.closed = True
        self._call_back()


@pytest.fixture(autouse=True)
def no_turns(monkeypatch):
    """Call at once what should be called at the end of a turn, since that needs a running POX."""
    for module in (connections, poxfixes):
        monkeypatch.setattr(module, "end_of_turn", lambda callback: callback())


class Worker(ioworkers.RobustIOWorker):
    """Reads from a Socket. It stands in for the workers that report their end to somebody else."""

    def ended(self, reason):
        self.connection.lost(reason)

    def far_end_finished(self):
        self.connection.finish()


def connect(sock, handle, name="controller", **options):
    """Return a ControllerConnection on a Socket."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ioworkers, "Outbox", Sent)
        worker = Worker(sock)
        worker.attach()
    worker.connection = ControllerConnection(worker, name, **options)
    worker.connection.set_message_handler(handle)
    return worker.connection


class Line:
    """A ControllerConnection, and the controller's end of it."""

    def __init__(self, handle=None, greet=True, **options):
        self.handled = []
        self.sock = Socket()
        self.connection = connect(self.sock, handle or self.keep, **options)
        assert self.answers() == [of.unpack(HELLO)], "a switch greets unasked"
        if greet:
            self.send(HELLO)
            assert self.connection.greeted and self.answers() == []

    def keep(self, connection, message):
        self.handled.append(message)

    def send(self, *chunks):
        for chunk in chunks:
            self.sock.coming.append(chunk)
            self.connection.io_worker._do_recv()

    def answers(self):
        messages, data = [], self.connection.io_worker.outbox.data
        while data:
            length = int.from_bytes(data[2:4], "big")
            messages.append(of.unpack(data[:length]))
            data = data[length:]
        self.connection.io_worker.outbox.data = b""
        return messages

    def error(self):
        """Return type, code and data of the one error that was sent."""
        (message,) = self.answers()
        assert message.type == of.Type.ERROR
        return of.unpack_error(message.body)


def numbered(count, size=8):
    return [of.message(of.Type.ECHO_REQUEST, bytes(size - 8), xid) for xid in range(count)]


# ---- messages from a stream of bytes ----


@given(st.lists(st.binary(max_size=100), max_size=10), st.data())
def test_messages_are_found_however_the_bytes_come(bodies, data):
    line = Line()
    messages = [of.message(of.Type.ECHO_REQUEST, body) for body in bodies]
    stream = b"".join(messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    for start, end in zip([0, *cuts], [*cuts, len(stream)]):
        if start < end:
            line.send(stream[start:end])
    assert line.handled == messages


def test_a_message_waits_for_its_last_byte():
    line = Line()
    message = of.message(of.Type.ECHO_REQUEST, b"body")
    for byte in range(len(message)):
        assert line.handled == []
        line.send(message[byte : byte + 1])
    assert line.handled == [message]


def test_the_longest_message():
    line = Line()
    message = of.message(of.Type.ECHO_REQUEST, bytes(65527))
    line.send(message[:40000], message[40000:])
    assert line.handled == [message]


@pytest.mark.parametrize("length", range(8))
def test_a_length_below_the_header_s_ends_the_connection(length):
    """Open vSwitch closes the connection without an error. A loop over such a length would never
    end.
    """
    line = Line()
    line.send(struct.pack("!BBHI", 1, of.Type.ECHO_REQUEST, length, 0) + HELLO)
    assert line.connection.closed and line.sock.shut
    assert line.handled == [] and line.answers() == []


@pytest.mark.parametrize("end", [b"", ConnectionResetError(104, "reset")], ids=["closed", "reset"])
def test_the_controller_s_end_of_the_connection_is_the_end_of_ours(end):
    line = Line()
    line.send(end)
    assert line.connection.closed
    line.connection.send(HELLO)
    assert line.answers() == []


def test_nothing_to_read_is_no_end():
    line = Line()
    line.connection.io_worker._do_recv()
    assert not line.connection.closed


# ---- the hello ----


@pytest.mark.parametrize("version", [1, 2, 4, 5, 6, 255])
@pytest.mark.parametrize("body", [b"", b"junk!", b"\0\1\0\0"], ids=["plain", "junk", "bad element"])
def test_a_hello_of_any_version_is_one(version, body):
    """The lower of both versions is used, and ours is 1.0."""
    line = Line(greet=False)
    line.send(of.message(of.Type.HELLO, body, version=version) + numbered(1)[0])
    assert line.connection.greeted and not line.connection.closed
    assert line.handled == numbered(1)


def bitmap(versions):
    return struct.pack("!HHI", 1, 8, versions)


@pytest.mark.parametrize("versions", [0b10, 0b10010, 0xFFFFFFFF])
def test_a_version_bitmap_with_ours_is_fine(versions):
    line = Line(greet=False)
    line.send(of.message(of.Type.HELLO, bitmap(versions), version=4))
    assert line.connection.greeted


@pytest.mark.parametrize("version", [1, 4])
def test_a_version_bitmap_without_ours_is_refused_as_open_vswitch_does(version):
    line = Line(greet=False)
    line.send(of.message(of.Type.HELLO, bitmap(1 << 4), version=version))
    (message,) = line.answers()
    assert (message.version, message.type, message.xid) == (4, of.Type.ERROR, 0)
    assert of.unpack_error(message.body) == of.Error(
        0, 0, b"We support version 0x01, you support version 0x04, no common versions."
    )
    assert line.connection.closed


@pytest.mark.parametrize(
    "first",
    [
        of.message(of.Type.FEATURES_REQUEST),
        of.message(of.Type.ERROR, bytes(4)),
        of.message(of.Type.HELLO, version=0),
    ],
    ids=["features request", "error", "hello of version 0"],
)
def test_what_comes_first_has_to_be_a_hello(first):
    line = Line(greet=False)
    line.send(first + HELLO)
    assert line.connection.closed and line.handled == [] and line.answers() == []


def test_an_echo_request_before_the_hello_closes_the_connection():
    line = Line(greet=False)
    line.send(of.message(of.Type.ECHO_REQUEST), HELLO, *numbered(1))
    assert line.connection.closed and line.handled == []


@pytest.mark.parametrize("version", [2, 4, 5, 255])
def test_an_echo_of_another_version_is_answered_in_it(version):
    line = Line()
    line.send(of.message(of.Type.ECHO_REQUEST, b"ping", 7, version))
    assert line.answers() == [of.Message(version, of.Type.ECHO_REPLY, 7, b"ping")]


@pytest.mark.parametrize(
    "version, kind, answered_in, code",
    [
        (4, of.Type.FEATURES_REQUEST, 4, 0),
        (2, of.Type.FLOW_MOD, 2, 0),
        (4, 99, 4, 0),
        (0, of.Type.FEATURES_REQUEST, 1, 0),
        (255, of.Type.FEATURES_REQUEST, 1, 0),
        (0, of.Type.ECHO_REQUEST, 1, 0),
        (4, of.Type.HELLO, 4, 1),
        (4, of.Type.ERROR, 4, 1),
    ],
)
def test_other_messages_of_another_version_are_refused(version, kind, answered_in, code):
    """OFPET_BAD_REQUEST with OFPBRC_BAD_VERSION or OFPBRC_BAD_TYPE, as measured."""
    line = Line()
    raw = of.message(kind, bytes(8), 7, version)
    line.send(raw)
    (message,) = line.answers()
    assert (message.version, message.xid) == (answered_in, 7)
    assert of.unpack_error(message.body) == of.Error(1, code, raw)
    assert not line.connection.closed


def test_an_answer_to_another_version_waits_for_its_turn():
    held = []

    def hold_once(connection, message):
        if held:
            return True
        held.append(message)
        connection.hold()
        return False

    line = Line(hold_once)
    line.send(of.message(of.Type.ECHO_REQUEST, b"ping", 7, 4))
    assert held and line.answers() == []
    line.connection.release()
    assert line.answers() == [of.Message(4, of.Type.ECHO_REPLY, 7, b"ping")]


# ---- what is wrong with one message ----


def test_what_is_refused_is_answered_and_the_next_is_handled():
    def refuse(connection, message):
        if message == first:
            raise OpenFlowError(3, 4)
        handled.append(message)

    handled = []
    first, second = numbered(2, 70)
    line = Line(refuse)
    line.send(first + second)
    assert line.error() == of.Error(3, 4, first)
    assert handled == [second]


def test_a_mistake_of_ours_costs_one_message(caplog):
    def fail(connection, message):
        if message == first:
            raise KeyError("a mistake")
        handled.append(message)

    handled = []
    first, second = numbered(2)
    line = Line(fail)
    line.send(first + second)
    assert line.error().type == 1
    assert handled == [second] and not line.connection.closed
    assert [r.levelname for r in caplog.records if r.name == "edge.upstream"].count("ERROR") == 1


# ---- messages that wait for a barrier ----


def test_what_comes_behind_a_barrier_waits_for_its_answer():
    handled = []

    def hold_at_2(connection, message):
        handled.append(message)
        if message == messages[2]:
            connection.hold()

    messages = numbered(5)
    line = Line(hold_at_2)
    line.send(b"".join(messages[:4]), messages[4])
    assert handled == messages[:3]
    line.connection.release()
    assert handled == messages


def test_who_is_not_read_for_long_is_not_silent(monkeypatch):
    """While a switch hangs, the read-ahead is bounded, and then the socket is not read. The
    controller's silence of that time does not count.
    """
    now = 1000.0
    monkeypatch.setattr(connections.time, "monotonic", lambda: now)
    monkeypatch.setattr(connections, "core", SimpleNamespace(running=True))
    line = Line(lambda connection, message: connection.hold())
    waits = connections.serve(line.connection)
    assert isinstance(next(waits), connections.Serve)
    line.send(*numbered(10, 4000))
    while now < 1100:
        now += 1
        assert isinstance(next(waits), connections.Sleep)
    line.handled.clear()
    line.connection.set_message_handler(line.keep)
    line.connection.release()
    for silence in (0, 1, 2):
        assert isinstance(next(waits), connections.Serve)
        assert not line.connection.closed, f"after {silence} s"
        now += 1
    assert len(line.handled) == 9 and line.answers() == []
    now += 4
    next(waits)
    assert [message.type for message in line.answers()] == [of.Type.ECHO_REQUEST]


@pytest.mark.parametrize(
    "service, asked, closed", [(False, 5, 10), (True, 60, 120)], ids=["controller", "client"]
)
def test_who_is_silent_is_asked_and_given_up(monkeypatch, service, asked, closed):
    """A bridge asks its controller after 5 s, and a client of its management socket after 60 s, so
    that an `ovs-ofctl monitor` may stand still for a minute.
    """
    now = 1000
    monkeypatch.setattr(connections.time, "monotonic", lambda: now)
    monkeypatch.setattr(connections, "core", SimpleNamespace(running=True))
    line = Line(service=service)
    told = {}
    for _ in connections.serve(line.connection):
        for message in line.answers():
            told[message.type] = now - 1000
        now += 1
    assert told == {of.Type.ECHO_REQUEST: asked} and now - 1000 == closed


def test_what_has_come_is_done_though_the_controller_has_gone():
    """Messages that change something are done. Requests are not, since nobody reads the answers."""
    handled = []

    def hold_at_first(connection, message):
        handled.append(message[1])
        if len(handled) == 1:
            connection.hold()

    kinds = [of.Type.BARRIER_REQUEST, of.Type.FLOW_MOD, of.Type.STATS_REQUEST, of.Type.PACKET_OUT]
    line = Line(hold_at_first)
    line.send(b"".join(map(of.message, kinds)), ConnectionResetError(104, "reset"))
    assert line.connection.closed and handled == kinds[:1]
    line.connection.release()
    assert handled == [of.Type.BARRIER_REQUEST, of.Type.FLOW_MOD, of.Type.PACKET_OUT]


def test_several_barriers_are_waited_for_one_after_the_other():
    handled = []

    def hold(connection, message):
        handled.append(message)
        connection.hold()

    messages = numbered(3)
    line = Line(hold)
    line.send(b"".join(messages))
    for count in (1, 2, 3):
        assert handled == messages[:count]
        line.connection.release()


def test_an_answer_that_is_there_at_once_holds_nothing_up():
    handled = []

    def hold_and_release(connection, message):
        handled.append(message)
        connection.hold()
        connection.release()

    messages = numbered(1000)
    line = Line(hold_and_release)
    line.send(b"".join(messages))
    assert handled == messages


# ---- messages that bypass a barrier ----

PACKET_IN, PORT_STATUS = (of.message(kind) for kind in (of.Type.PACKET_IN, of.Type.PORT_STATUS))


class Bypassed(Line):
    """A connection that its first message holds. Messages with an even xid may bypass it."""

    def __init__(self):
        self.bypassed = []
        super().__init__(self.hold_once)
        self.messages = numbered(6)
        self.send(self.messages[1])

    def hold_once(self, connection, message):
        self.handled.append(message)
        if len(self.handled) == 1:
            connection.hold(self.bypass)

    def bypass(self, message):
        if message[7] % 2:
            return False
        self.bypassed.append(message)
        return True

    def tell(self, *messages):
        for message in messages:
            self.connection.tell(message[1], message)


def test_what_need_not_wait_for_a_barrier_is_done_until_something_has_to():
    line = Bypassed()
    first, even, odd = line.messages[1], line.messages[::2], line.messages[3]
    line.send(even[0], even[1] + odd + even[2])
    assert line.handled == [first] and line.bypassed == even[:2]
    line.connection.release()
    assert line.handled == [first, odd, even[2]] and line.bypassed == even[:2]


def test_what_may_come_of_something_that_did_not_wait_is_told_behind_the_answer():
    line = Bypassed()
    line.tell(PORT_STATUS)
    assert line.answers() == [of.unpack(PORT_STATUS)], "nothing has bypassed the barrier yet"
    line.send(line.messages[2])
    line.tell(PACKET_IN, PORT_STATUS)
    assert line.answers() == []
    answer = line.messages[0]
    line.connection.answer([answer])
    line.tell(PACKET_IN)
    told = [answer, PACKET_IN, PORT_STATUS, PACKET_IN]
    assert line.answers() == [of.unpack(each) for each in told]


def test_what_is_told_behind_an_answer_has_its_limit():
    """If the answer takes long, the messages behind it are sent early. None is lost, the order
    stays, and no message bypasses from then on.
    """
    line = Bypassed()
    line.send(line.messages[2])
    sent = [of.message(of.Type.PACKET_IN, bytes(1000), xid) for xid in range(3000)]
    line.tell(*sent)
    told = line.answers()
    assert len(told) >= 1000
    line.send(line.messages[4])
    assert line.bypassed == [line.messages[2]]
    line.connection.release()
    assert told + line.answers() == [of.unpack(each) for each in sent]
    assert line.handled[1:] == [line.messages[4]]


def test_a_length_below_the_header_s_waits_for_the_answers_before_it():
    line = Bypassed()
    line.send(line.messages[2] + struct.pack("!BBHI", 1, of.Type.ECHO_REQUEST, 7, 0))
    assert line.bypassed == [line.messages[2]] and not line.connection.closed
    line.connection.answer([line.messages[0]])
    assert line.answers() == [of.unpack(line.messages[0])] and line.connection.closed


def test_a_mistake_with_what_need_not_wait_has_it_wait():
    line = Bypassed()
    line.connection.hold(lambda message: 1 / 0)
    line.send(line.messages[2])
    assert line.handled == line.messages[1:2]
    line.connection.release()
    assert line.handled == line.messages[1:3] and not line.connection.closed


class Turns(list):
    """The callbacks for the ends of turns."""

    def end(self):
        for callback in [self.pop(0) for _ in range(len(self))]:
            callback()


@pytest.fixture
def turns(monkeypatch):
    """Turns that end when the test says so."""
    turns = Turns()
    monkeypatch.setattr(poxfixes, "end_of_turn", turns.append)
    return turns


def test_a_long_answer_takes_several_turns_and_what_came_meanwhile_waits(turns):
    line = Line(lambda connection, message: handled.append(message) or connection.hold())
    handled = []
    first, second, *parts = numbered(5)
    line.send(first, second)
    line.connection.answer([parts[0], parts[1], b"", b"", parts[2]])
    assert line.answers() == [of.unpack(part) for part in parts[:2]]
    turns.end()
    assert line.answers() == [] and handled == [first]
    turns.end()
    assert line.answers() == [of.unpack(parts[2])]
    assert handled == [first, second]


def test_a_long_answer_ends_when_the_connection_does(turns):
    def messages():
        for number in range(3):
            made.append(number)
            yield numbered(1)[0]
            yield b""

    line, made = Line(lambda connection, message: connection.hold()), []
    line.send(*numbered(1))
    line.connection.answer(messages())
    line.connection.close()
    while turns:
        turns.end()
    assert len(made) <= 2


@pytest.mark.parametrize("pauses", [0, 1])
def test_a_mistake_in_an_answer_holds_nothing_up(turns, pauses):
    def messages():
        yield from [b""] * pauses
        raise KeyError("a mistake")

    line, handled = (
        Line(lambda connection, message: handled.append(message) or connection.hold()),
        [],
    )
    first, second = numbered(2)
    line.send(first, second)
    with pytest.raises(KeyError):
        line.connection.answer(messages())
        while turns:
            turns.end()
    assert handled == [first, second]


def test_what_waits_has_its_limit():
    """At the limit the controller's socket is not read any more, so TCP stops the controller."""
    line = Line(lambda connection, message: connection.hold())
    message = of.message(of.Type.ECHO_REQUEST, bytes(60000))
    line.send(message)
    sent = 0
    while line.connection.wants_more:
        line.send(message)
        sent += len(message)
        assert sent < 4 << 20
    assert sent
    line.connection.release()
    assert line.connection.wants_more


def test_what_waits_is_forgotten_when_the_connection_ends():
    handled = []

    def hold(connection, message):
        handled.append(message)
        connection.hold()

    line = Line(hold)
    line.send(b"".join(numbered(3)), ConnectionResetError(104, "reset"))
    assert line.connection.closed
    line.connection.release()
    assert handled == numbered(1)


# ---- a controller that has sent its last message and still reads ----


def test_who_sends_no_more_is_answered_all_and_then_closed():
    """The requests wait behind a barrier when the controller ends its sending. The errors of
    switches come last.
    """

    def hold(connection, message):
        connection.hold()
        handled.append(message)

    handled, settling = [], []
    line = Line(hold)
    line.connection.settle = settling.append
    requests = numbered(2)
    line.send(b"".join(requests) + HELLO[:5], b"")
    for number in (1, 2):
        assert handled == requests[:number] and not settling
        line.connection.answer([requests[number - 1]])
    assert not line.connection.closed
    line.connection.send(PORT_STATUS)
    settling.pop()()
    assert line.connection.closed and settling == []
    assert line.answers() == [of.unpack(each) for each in (*requests, PORT_STATUS)]


def test_who_sends_no_more_has_time_to_read_the_answers(monkeypatch):
    """The time begins anew whenever some of what waits has been read."""
    now = 1000
    monkeypatch.setattr(connections.time, "monotonic", lambda: now)
    monkeypatch.setattr(connections, "core", SimpleNamespace(running=True))
    line = Line()
    outbox = line.connection.io_worker.outbox
    waits = connections.serve(line.connection)
    next(waits)
    outbox.backlog = 20
    line.send(b"")
    for backlog in (20, 10):
        outbox.backlog = backlog
        for _ in range(5):
            next(waits)
            now += 1
        assert not line.connection.closed
    outbox.backlog = 0
    assert list(waits) == [] and line.connection.closed

    line = Line()
    waits = connections.serve(line.connection)
    next(waits)
    line.connection.io_worker.outbox.backlog = 20
    line.send(b"")
    gone = now
    for _ in waits:
        now += 1
    assert line.connection.closed and 5 <= now - gone <= 8
