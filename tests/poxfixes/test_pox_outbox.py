"""Sending to switches: every scenario breaks plain POX and not the repaired one."""

import queue
import socket
import struct
import time

import pytest
from poxharness import (
    ECHO_REPLY,
    ECHO_REQUEST,
    FLOW_REMOVED,
    NEVER,
    SOON,
    Switch,
    message,
    on_both,
    on_fixed,
)

MEGABYTE = message(ECHO_REQUEST, bytes(65520)) * 16


def stuck_switches(pox):
    """Five switches that do not read are given up. A sixth switch is not disturbed."""
    pox.listen()
    healthy = pox.switch(9)
    stuck = [pox.switch(dpid, receive_buffer=4096) for dpid in range(1, 6)]

    def overfill():
        for switch in stuck:
            for _ in range(8):
                switch.connection.send(MEGABYTE)

    pox.call(overfill)

    def give_up():
        for switch in stuck:
            switch.connection.close()
            time.sleep(0.05)  # so that POX's threads meet closed and open ones together

    pox.call(give_up)
    return {"healthy": healthy.answered(), "newcomer": pox.lets_in(20)}


def test_stuck_switches_that_are_closed_do_not_silence_the_others():
    plain, fixed = on_both(stuck_switches)
    assert plain.result == {"healthy": False, "newcomer": False}
    assert fixed.result == {"healthy": True, "newcomer": True}


def slow_reader(pox):
    """A switch reads 8 MB late. More messages follow meanwhile, and all arrive in order."""
    pox.listen()
    switch = pox.switch(receive_buffer=4096)
    other = pox.switch(2)
    con = switch.connection
    count = 2000
    body = bytes(4000)

    def send(numbers):
        for number in numbers:
            con.send(message(ECHO_REQUEST, body, number))
        return con.backlog

    backlog = pox.call(send, range(count))
    answered = other.answered()
    pox.call(send, range(count, count + 100))
    received = [switch.receive() for _ in range(count + 100)]
    whole = received == [(ECHO_REQUEST, number, body) for number in range(count + 100)]
    still = switch.answered()  # so the queue is empty again
    return {
        "waited": backlog > 1 << 20,
        "other": answered,
        "whole": whole,
        "backlog": pox.call(lambda: con.backlog),
        "still": still,
    }


def test_a_slow_reader_gets_everything_in_order_and_holds_up_nobody():
    assert on_fixed(slow_reader).result == {
        "waited": True,
        "other": True,
        "whole": True,
        "backlog": 0,
        "still": True,
    }


def too_slow(pox):
    from pox.openflow import of_01

    of_01.Connection.max_backlog = 10 << 20
    pox.listen()
    switch = pox.switch(receive_buffer=4096)
    con = switch.connection

    def overfill():
        for _ in range(100):
            con.send(MEGABYTE)
        return [con.disconnected, con.disconnection_raised, con.backlog]

    state = pox.call(overfill)
    return [*state, pox.event(), pox.quiet(), 1 in pox.nexus.connections.dpids]


def test_a_switch_that_takes_too_little_is_dropped():
    outcome = on_fixed(too_slow)
    # In the sender's turn the connection is only marked. ConnectionDown comes from its own task.
    assert outcome.result == [True, False, 0, ["down", 1], True, False]
    assert outcome.log.count("does not take what we send") == 1


def said_and_reset(pox):
    """A switch says something and resets the connection. Before that is read, it is sent more."""
    pox.listen()
    switch = pox.switch()
    con = switch.connection
    heard = []

    def meet():
        con.intercept = lambda kind, whole: heard.append(kind) or True
        switch.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        switch.sock.sendall(message(FLOW_REMOVED, bytes(80)) * 300)
        switch.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        switch.close()
        for _ in range(2):
            con.send(message(ECHO_REQUEST))
            con.flush()
        return len(heard)

    before = pox.call(meet)
    return [before, pox.event(), len(heard), con.reason.startswith("lost: "), pox.lets_in()]


def test_what_a_switch_has_said_before_it_went_is_heard_though_sending_fails_first():
    assert on_fixed(said_and_reset).result == [0, ["down", 1], 300, True, True]


class Counting:
    """A socket that counts the calls of send()."""

    def __init__(self, sock):
        self._sock = sock
        self.sends = 0

    def send(self, data):
        self.sends += 1
        return self._sock.send(data)

    def __getattr__(self, name):
        return getattr(self._sock, name)


def a_thousand(pox):
    """1,000 messages are sent in one turn. Count the system calls."""
    pox.listen()
    switch = pox.switch()
    con = switch.connection
    counting = con.sock = Counting(con.sock)
    if pox.fixed:
        con._outbox._sock = counting

    def send():
        for number in range(1000):
            con.send(message(ECHO_REQUEST, bytes(72), number))

    pox.call(send)
    whole = [switch.receive()[1] for _ in range(1000)] == list(range(1000))
    return {"calls": counting.sends, "whole": whole}


def test_a_thousand_messages_of_one_turn_are_a_few_system_calls():
    plain, fixed = on_both(a_thousand)
    assert plain.result == {"calls": 1000, "whole": True}
    assert fixed["whole"]
    assert fixed["calls"] <= 3


def end_of_turn(pox):
    """Count the bytes that have left: in the turn that sends, after flush(), and in the next
    turn.
    """
    from pox.lib.recoco import Task

    pox.listen()
    switch = pox.switch()
    con = switch.connection
    arrived = queue.Queue()

    def there():
        switch.sock.setblocking(False)
        try:
            return len(switch.sock.recv(1000, socket.MSG_PEEK))
        except BlockingIOError:
            return 0

    class Sender(Task):
        def run(self):
            con.send(message(ECHO_REQUEST))
            Next().start(fast=True)
            arrived.put(there())
            con.flush()
            arrived.put(there())
            con.send(message(ECHO_REQUEST))
            yield False

    class Next(Task):
        def run(self):
            arrived.put(there())
            yield False

    Sender().start()
    return [arrived.get(timeout=SOON) for _ in range(3)]


def test_what_a_turn_sends_has_left_when_the_next_task_runs():
    assert on_fixed(end_of_turn).result == [0, 8, 16]


def no_delay(pox):
    pox.listen()
    con = pox.switch().connection
    return con.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


def test_small_messages_are_not_delayed():
    plain, fixed = on_both(no_delay)
    assert not plain.result
    assert fixed.result


def last_words(pox):
    pox.listen()
    switch = pox.switch()

    def end():
        switch.connection.send(message(ECHO_REQUEST, b"goodbye"))
        switch.connection.disconnect()

    pox.call(end)
    return [switch.receive()[2].decode(), switch.receive()]


def test_what_was_sent_before_disconnect_arrives():
    assert on_fixed(last_words).result == ["goodbye", None]


def vanishes(pox):
    """The switch resets its connection while we send."""
    pox.listen()
    switch = pox.switch()
    other = pox.switch(2)
    con = switch.connection
    switch.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    with pox.core.scheduler.synchronized():
        switch.close()
        con.send(message(ECHO_REQUEST))
        con.flush()
        con.send(message(ECHO_REQUEST))
    return [pox.event(), pox.call(lambda: con.backlog), other.answered()]


def test_a_switch_that_vanishes_while_we_send_is_just_lost():
    outcome = on_fixed(vanishes)
    assert outcome.result == [["down", 1], 0, True]
    assert "Traceback" not in outcome.log


def no_memory(pox):
    """There is no memory for what a switch is sent."""
    pox.listen()
    switch, other = pox.switch(1), pox.switch(2)

    class Full:
        def send(self, data):
            raise MemoryError

    def overload():
        switch.connection._outbox._sock = Full()
        switch.connection.send(message(ECHO_REQUEST))

    pox.call(overload)
    return [pox.event(), other.answered(), pox.lets_in(1)]


def test_a_switch_for_which_there_is_no_memory_is_lost_and_comes_back():
    outcome = on_fixed(no_memory)
    assert outcome.result == [["down", 1], True, True]
    assert outcome.log.count("Memory is short") == 1
    assert "ERROR" not in outcome.log


def from_another_thread(pox):
    """launch() runs in the main thread. A message that it sends must not wait for other events."""
    pox.listen()
    switch = pox.switch()
    switch.connection.send(message(ECHO_REQUEST, b"main"))
    return switch.receive(NEVER)[2].decode()


def test_what_another_thread_sends_leaves_at_once():
    assert on_fixed(from_another_thread).result == "main"


def poxs_own_connection(pox):
    """A component has kept POX's own class of connections. Its deferred sends still work."""
    from pox.openflow import of_01

    original = of_01.Connection.__mro__[1]
    near, far = socket.socketpair()
    near.setblocking(False)
    con = pox.call(original, near)
    body = bytes(60000)
    count = 100

    def send():
        for number in range(count):
            con.send(message(ECHO_REPLY, body, number))
        return of_01.deferredSender.sending

    deferred = pox.call(send)
    switch = Switch.__new__(Switch)
    switch.sock, switch._buffer = far, bytearray()
    switch.receive()  # skips its hello
    whole = all(switch.receive() == (ECHO_REPLY, number, body) for number in range(count))
    pox.call(int)
    return {"deferred": deferred, "whole": whole, "sending": of_01.deferredSender.sending}


def test_other_connections_can_still_defer_what_they_send():
    outcome = on_fixed(poxs_own_connection)
    assert outcome.result == {"deferred": True, "whole": True, "sending": False}


def test_the_deferred_sender_starts_no_thread():
    plain, fixed = on_both(sender_thread)
    assert plain.result
    assert not fixed.result


def sender_thread(pox):
    import threading

    pox.listen()
    return any("DeferredSender" in type(thread).__name__ for thread in threading.enumerate())


def crowded(pox):
    """What is called while a switch reads too slowly, as it reads again, and at its end."""
    pox.listen()
    switch = pox.switch(receive_buffer=4096)
    other = pox.switch(2, receive_buffer=4096)
    room = queue.Queue()
    box = {"crowded": 0}

    def count():
        box["crowded"] += 1

    def overfill(con):
        con.crowded = count
        box["crowded"] = 0
        while con.stuck <= 8 << 20:
            con.send(message(ECHO_REQUEST, bytes(4000)))
        con.when_room(lambda: room.put(con.stuck))
        return box["crowded"]

    con = switch.connection
    times = pox.call(overfill, con)
    end = pox.call(lambda: con._outbox.end)
    asked_twice = room.empty()
    while room.empty():
        switch.receive()
    left = room.get()
    taken = pox.call(lambda: con._outbox.end)
    pox.call(overfill, other.connection)
    other.close()
    at_its_end = room.get(timeout=SOON)
    return [times, asked_twice, left, end == taken, at_its_end]


def test_who_sends_too_much_is_told_and_who_waits_for_room_is_called_back():
    times, waited, left, same, at_its_end = on_fixed(crowded).result
    assert times == pytest.approx((8 - 1) * 1024 * 1024 / 4008, abs=20)
    assert waited and left <= 256 << 10
    assert same, "what is still to be sent counts as sent"
    assert at_its_end == 0
