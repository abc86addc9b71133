"""A switch's connection: every scenario breaks plain POX and not the repaired one."""

import contextlib
import queue
import select
import socket
import struct
import time

from poxharness import (
    BARRIER_REPLY,
    BARRIER_REQUEST,
    ECHO_REPLY,
    ECHO_REQUEST,
    ERROR,
    FEATURES_REPLY,
    FEATURES_REQUEST,
    FLOW_REMOVED,
    HELLO,
    PACKET_IN,
    PORT_STATUS,
    SOON,
    STATS_REPLY,
    Switch,
    message,
    on_both,
    on_fixed,
)

UNREADABLE = {
    "unknown type": message(77, b"what?"),
    "type 255": message(255),
    "truncated flow-removed": message(FLOW_REMOVED, bytes(10)),
    "truncated packet-in": message(PACKET_IN, bytes(3)),
    "truncated port-status": message(PORT_STATUS, bytes(9)),
    "truncated error": message(ERROR, b"\0"),
    "barrier reply with a body": message(BARRIER_REPLY, bytes(8)),
    "flow stats, half an entry": message(STATS_REPLY, struct.pack("!HHH", 1, 0, 88) + bytes(20)),
    "port stats, truncated": message(STATS_REPLY, struct.pack("!HH", 4, 0) + bytes(50)),
}


def unreadable(pox):
    pox.listen()
    survived = {}
    for dpid, (name, bad) in enumerate(UNREADABLE.items(), 1):
        switch = pox.switch(dpid)
        switch.sock.sendall(bad)
        survived[name] = switch.answered()
    return survived


def test_an_unreadable_message_costs_a_line_in_the_log():
    plain, fixed = on_both(unreadable)
    assert not any(plain.result.values()), plain.result
    assert all(fixed.result.values()), fixed.result
    assert "Traceback" in plain.log
    assert "Traceback" not in fixed.log
    assert fixed.log.count("WARNING edge.pox") == len(UNREADABLE)


def vendor_statistics(pox):
    """A switch sends Open vSwitch's answer to a Nicira flow stats request."""
    import pox.openflow.nicira as nicira

    nicira.launch()
    pox.listen()
    switch = pox.switch()
    body = struct.pack("!HHLL4x", 0xFFFF, 0, 0x2320, 0) + struct.pack(
        "!HBxLLHHHHHH4xQQQ", 48, *[0] * 11, 0
    )
    switch.send(STATS_REPLY, body)
    return switch.answered()


def test_vendor_statistics_do_not_cost_the_connection():
    plain, fixed = on_both(vendor_statistics)
    assert not plain.result
    assert fixed.result


def hello_of_length_0(pox):
    pox.listen()
    pox.switch(1)
    bad = Switch(pox.port)
    bad.sock.sendall(struct.pack("!BBHL", 1, HELLO, 0, 0))
    return {"closed": bad.closed(), "alive": pox.alive()}


def test_a_hello_of_length_0_does_not_stop_everything():
    plain, fixed = on_both(hello_of_length_0)
    assert plain.result == {"closed": False, "alive": False}
    assert fixed.result == {"closed": True, "alive": True}


def no_openflow_10(pox):
    pox.listen()
    closed = []
    for header in [
        (4, ECHO_REQUEST, 8),
        (0, ECHO_REQUEST, 8),
        (0x16, 3, 1),
        *((1, ECHO_REQUEST, length) for length in range(8)),
    ]:
        switch = Switch(pox.port)
        switch.send(HELLO)
        switch.sock.sendall(struct.pack("!BBHL", *header, 0))
        closed.append(switch.closed())
    return closed


def test_a_wrong_version_or_length_closes_the_connection_without_a_traceback():
    outcome = on_fixed(no_openflow_10)
    assert all(outcome.result)
    assert "Traceback" not in outcome.log


def hello_of_13(pox):
    """An Open vSwitch that may speak 1.0 to 1.5 lists these versions in a bitmap."""
    pox.listen()
    switch = Switch(pox.port)
    switch.send(HELLO, struct.pack("!HHL", 1, 8, 0x7E), version=6)
    assert switch.expect(HELLO)
    switch.send(FEATURES_REPLY, switch.features())
    switch.send(BARRIER_REPLY, xid=switch.expect(BARRIER_REQUEST)[1])
    return pox.event()


def test_a_hello_with_a_higher_version_is_welcome():
    assert on_fixed(hello_of_13).result == ["up", 1]


def only_13(pox):
    """Peers that offer 1.3 only: one says why it cannot speak 1.0, one hangs on in silence."""
    if pox.fixed:
        from edge.poxfixes import listener

        listener.PARTING = 0.2
    pox.listen()
    hello = struct.pack("!HHL", 1, 8, 1 << 4)
    told, closed = [], []
    for reason in (b"\0\0\0\0only 1.3, sorry\nERROR:forged:", b"", b""):
        switch = Switch(pox.port)
        switch.send(HELLO, hello, version=4)
        with contextlib.suppress(OSError, EOFError):
            told.append(switch.expect(ERROR, SOON if pox.fixed else 0.1)[2].decode())
        if reason:
            switch.send(ERROR, reason, version=4)
        closed.append(switch.closed(SOON if pox.fixed else 0.1))
    return {"told": told, "closed": closed, "next": pox.lets_in(1)}


def test_a_peer_that_speaks_another_version_is_told_so_and_named_once_with_its_reason():
    plain, fixed = on_both(only_13)
    assert plain.result == {"told": [], "closed": [True, False, False], "next": True}
    text = "\0\0\0\0We support version 0x01, you support version 0x04, no common versions."
    assert fixed.result == {"told": [text] * 3, "closed": [True] * 3, "next": True}
    first, second = (line for line in fixed.log.splitlines() if line.startswith("WARNING"))
    assert "offers OpenFlow 1.3" in first and "1.0" in first
    assert r"only 1.3, sorry\\x0aERROR:forged:" in first, (
        "its own reason, as it cannot forge a line"
    )
    assert "offers OpenFlow 1.3" in second and "sorry" not in second


def no_switches(pox):
    """What connects to any open port, ten times each."""
    pox.listen()
    pox.switch(1)
    for sent in (
        b"GET / HTTP/1.0\r\n\r\n",
        bytes.fromhex("160301020001000001fc0303") + bytes(500),
        bytes(1000),
        b"",
        b"SSH-2.0-x\r\n",
        message(HELLO) + message(FEATURES_REQUEST),
        message(HELLO) + message(77, b"what?") * 20,
        message(HELLO) + message(FEATURES_REPLY, bytes(3)),
    ):
        for _ in range(10):
            peer = Switch(pox.port)
            peer.sock.sendall(sent)
            peer.sock.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionError):
                peer.closed()
            peer.close()
    return pox.lets_in(2)


def test_what_is_no_switch_costs_a_line_an_address_and_minute():
    outcome = on_fixed(no_switches)
    assert outcome.result
    lines = [line for line in outcome.log.splitlines() if "127.0.0.1" in line]
    assert len(lines) == 1 and "GET / HTTP/1.0" in lines[0], lines


def handler_raises(pox):
    """1,000 messages meet a handler with a mistake. The log must not grow with each."""
    pox.listen()
    switch = pox.switch()

    def mistake(con, msg):
        raise RuntimeError("a mistake")

    switch.connection.handlers = list(switch.connection.handlers)
    switch.connection.handlers[BARRIER_REPLY] = mistake
    for _ in range(1000):
        switch.send(BARRIER_REPLY)
    return switch.answered()


def test_a_mistake_in_a_handler_does_not_fill_the_log():
    plain, fixed = on_both(handler_raises)
    assert plain.log.count("Traceback") > 10, "one each; a busy machine does not get through all"
    assert fixed.result
    assert "Traceback" not in fixed.log
    assert fixed.log.count("a mistake") == 10
    assert fixed.log.count("further ones at DEBUG") == 1


def connects_again(pox):
    pox.listen()
    old = pox.switch(1)
    new = pox.switch(1)
    old.close()
    down = pox.events.get(timeout=SOON)
    assert down[0] == "down"
    connections = pox.nexus.connections
    return {
        "of the old one": down[2] is old.connection,
        "new one known": connections.get(1) is new.connection,
        "reached": pox.call(pox.nexus.sendToDPID, 1, message(ECHO_REQUEST)),
    }


def test_a_switch_that_connects_again_stays_connected():
    plain, fixed = on_both(connects_again)
    assert plain.result == {"of the old one": True, "new one known": False, "reached": False}
    assert fixed.result == {"of the old one": True, "new one known": True, "reached": True}


def never_up(pox):
    pox.listen()
    switch = Switch(pox.port)
    switch.shake_hands(barrier=False)
    switch.expect(BARRIER_REQUEST)
    switch.close()
    other = Switch(pox.port, 2)  # POX reads its messages after the first one's end
    other.shake_hands()
    return pox.event()


def test_connection_down_comes_only_after_connection_up():
    plain, fixed = on_both(never_up)
    assert plain.result == ["down", 1]
    assert fixed.result == ["up", 2]


def another_dpid(pox):
    pox.listen()
    switch = pox.switch(1)
    switch.send(FEATURES_REPLY, switch.features(2))
    closed = switch.closed()
    return {"closed": closed, "known": sorted(pox.nexus.connections.dpids)}


def test_a_connection_cannot_become_another_datapath():
    plain, fixed = on_both(another_dpid)
    assert plain.result == {"closed": False, "known": [1, 2]}
    assert fixed.result == {"closed": True, "known": []}


def same_features_again(pox):
    pox.listen()
    switch = pox.switch(1)
    switch.send(FEATURES_REPLY, switch.features())
    return switch.answered()


def test_the_same_features_may_be_told_again():
    assert on_fixed(same_features_again).result


def down_once(pox):
    pox.listen()
    switch = pox.switch(1)
    con = switch.connection

    def end():
        con.disconnect()
        con.disconnect()
        con.close()
        con.close()
        con.send(message(ECHO_REQUEST))

    pox.call(end)
    return [pox.event(), switch.closed(), pox.quiet(), pox.alive()]


def test_connection_down_comes_once_however_often_it_is_closed():
    assert on_fixed(down_once).result == [["down", 1], True, True, True]


def refused(pox):
    from pox.openflow import of_01

    asked = []

    def accept(con, dpid):
        asked.append(dpid)
        return dpid != 1

    of_01.Connection.accept_dpid = accept
    pox.listen()
    bad = Switch(pox.port, 1)
    bad.shake_hands(barrier=False)
    closed = bad.closed()
    pox.switch(2)
    return {"closed": closed, "asked": asked, "known": list(pox.nexus.connections.dpids)}


def test_accept_dpid_decides_before_anybody_else_learns_of_the_switch():
    assert on_fixed(refused).result == {"closed": True, "asked": [1, 2], "known": [2]}


def intercepted(pox):
    pox.listen()
    switch = pox.switch()
    seen = []
    replies = queue.Queue()
    pox.nexus.addListenerByName("BarrierIn", lambda event: replies.put(event.xid))

    def intercept(msg_type, raw):
        seen.append([msg_type, raw.hex()])
        if raw[4:8] == b"\0\0\0\3":
            raise ValueError("a mistake")
        return raw[4:8] == b"\0\0\0\1"

    switch.connection.intercept = intercept
    switch.sock.sendall(b"".join(message(BARRIER_REPLY, xid=xid) for xid in (1, 2, 3, 4)))
    got = [replies.get(timeout=SOON), replies.get(timeout=SOON)]
    return {"seen": seen, "POX got": got}


def test_intercept_sees_whole_messages_before_pox_does():
    outcome = on_fixed(intercepted)
    assert outcome["seen"] == [
        [BARRIER_REPLY, message(BARRIER_REPLY, xid=xid).hex()] for xid in (1, 2, 3, 4)
    ]
    assert outcome["POX got"] == [2, 4]
    assert outcome.log.count("a mistake") == 1


def in_pieces(pox):
    """Messages arrive a byte at a time; two in one segment; the longest message; 20,000 in a
    row.
    """
    pox.listen()
    switch = pox.switch()
    switch.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    slowly = message(ECHO_REQUEST, b"slowly", 1) + message(ECHO_REQUEST, b"", 2)
    for byte in slowly:
        switch.sock.sendall(bytes([byte]))
    answers = [list(switch.receive()[:2]) for _ in range(2)]

    longest = bytes(i % 251 for i in range(65527))
    switch.sock.sendall(message(ECHO_REQUEST, longest, 3) + message(ECHO_REQUEST, b"", 4))
    received = switch.receive()
    answers.append([received[1], received[2] == longest])
    answers.append(list(switch.receive()[:2]))

    count = 20_000
    flood = b"".join(message(ECHO_REQUEST, b"x" * (xid % 50), xid) for xid in range(count))
    for start in range(0, len(flood), 50_000):
        switch.sock.sendall(flood[start : start + 50_000])
    answers.append(all(switch.receive()[1] == xid for xid in range(count)))
    return answers


def test_messages_arrive_whole_however_they_are_cut():
    expected = [[ECHO_REPLY, 1], [ECHO_REPLY, 2], [3, True], [ECHO_REPLY, 4], True]
    assert on_fixed(in_pieces).result == expected


def a_flood_and_another(pox):
    """Two switches' messages wait at the same time. Return after how many of the flood the other
    switch's message is read.
    """
    pox.listen()
    flooder, other = pox.switch(1), pox.switch(2)
    order = []
    done = queue.Queue()

    def of_flooder(msg_type, raw):
        order.append(1)
        if raw[4:8] == b"\0\0\0\1":
            done.put(True)
        return True

    def of_other(msg_type, raw):
        order.append(2)
        return True

    flooder.connection.intercept = of_flooder
    other.connection.intercept = of_other
    with pox.core.scheduler.synchronized():
        flooder.sock.sendall(message(BARRIER_REPLY) * 4000 + message(BARRIER_REPLY, xid=1))
        other.send(BARRIER_REPLY)
        for switch, size in ((flooder, 4001 * 8), (other, 8)):
            select.select([switch.connection.sock], [], [], SOON)
            while len(switch.connection.sock.recv(1 << 16, socket.MSG_PEEK)) < size:
                pass
    done.get(timeout=SOON)
    return order.index(2)


def test_a_flood_of_one_switch_does_not_hold_up_another():
    assert on_fixed(a_flood_and_another).result <= 128


def urgent(pox):
    """A byte out of band makes a socket exceptional until somebody reads it as out of band."""
    pox.listen()
    switch = pox.switch()
    switch.sock.send(b"!", socket.MSG_OOB)
    answered = switch.answered()
    before = time.process_time()
    with contextlib.suppress(socket.timeout):
        switch.receive(0.5)
    return {"answered": answered, "CPU": time.process_time() - before}


def test_a_byte_out_of_band_neither_closes_nor_spins():
    outcome = on_fixed(urgent)
    assert outcome["answered"]
    assert outcome["CPU"] < 0.2
