"""
Handles the messages of controllers.

Each message type has one method.  POX's switch-side framework finds it by its name
(pox/datapaths/switch.py:139).  The order of the checks, and the errors, are Open vSwitch's.
"""

import time
from collections.abc import Iterator
from functools import partial
from typing import Callable, NamedTuple, Optional

import pox.openflow.libopenflow_01 as of
from pox.datapaths.switch import SwitchFeatures

from edge.north.connections import ControllerConnection
from edge.north.statistics import TABLES, Statistics, refuse_vendor
from edge.openflow import actions as act
from edge.openflow import flowmods, messages, stats
from edge.openflow import match as matches
from edge.openflow import nicira as nx
from edge.openflow.errors import NiciraError, OpenFlowError, bad_request
from edge.south.member import Member
from edge.south.memberports import Bits
from edge.south.session import State
from edge.switch.changes import Add, Modify, PortMod
from edge.switch.flowtable import FlowEntry, with_output
from edge.switch.slices import FLOWS_PER_SLICE


class _Lengths(NamedTuple):
    """The possible lengths of a message: `least`, plus any number of times `step` (bytes)."""

    least: int
    step: int = 0

    def fits(self, length: int) -> bool:
        more = length - self.least
        return more == 0 or (more > 0 and self.step > 0 and more % self.step == 0)


# The lengths of messages that only switches send, without the header.
_REPLY_LENGTHS = {
    of.OFPT_ERROR: _Lengths(4, 1),
    of.OFPT_FEATURES_REPLY: _Lengths(24, 48),
    of.OFPT_GET_CONFIG_REPLY: _Lengths(4),
    of.OFPT_PACKET_IN: _Lengths(10, 1),
    of.OFPT_FLOW_REMOVED: _Lengths(80),
    of.OFPT_PORT_STATUS: _Lengths(56),
    of.OFPT_BARRIER_REPLY: _Lengths(0),
    of.OFPT_QUEUE_GET_CONFIG_REPLY: _Lengths(8, 8),
}
_STATS_REPLY_LENGTHS = {
    of.OFPST_DESC: _Lengths(1056),
    of.OFPST_FLOW: _Lengths(0, 1),
    of.OFPST_AGGREGATE: _Lengths(24),
    of.OFPST_TABLE: _Lengths(0, 64),
    of.OFPST_PORT: _Lengths(0, 104),
    of.OFPST_QUEUE: _Lengths(0, 32),
    stats.OFPST_PORT_DESC: _Lengths(0, 48),
    of.OFPST_VENDOR: _Lengths(0, 1),
}

# Messages that a controller with the role of a slave may not send, and their lengths.
_CHANGES = {
    of.OFPT_PACKET_OUT: _Lengths(16, 1),
    of.OFPT_FLOW_MOD: _Lengths(72, 8),
    of.OFPT_PORT_MOD: _Lengths(32),
}

# Messages that are not answered when they are accepted, or whose answer waits for the switches.
_UNANSWERED = frozenset((of.OFPT_FLOW_MOD, of.OFPT_PACKET_OUT, of.OFPT_BARRIER_REQUEST))

_KEEP_COOKIE = 0xFFFFFFFFFFFFFFFF
_KNOWN_FLAGS = of.OFPFF_SEND_FLOW_REM | of.OFPFF_CHECK_OVERLAP | of.OFPFF_EMERG
_FRAGMENT_FLAGS = 0x0007
# All bits of a port's configuration in OpenFlow 1.0 (OFPPC_*).
_PORT_CONFIG = 0x7F


class Requests(Statistics):
    """The handlers of a controller's messages: a base class of the datapath."""

    dpid: int
    features: SwitchFeatures
    connections: list[ControllerConnection]
    ofp_handlers: dict[int, Callable[[bytes, ControllerConnection], Optional[bool]]]

    def rx_message(self, connection: ControllerConnection, msg: bytes) -> bool:
        """
        Handle a message.  A message of another version is answered by the connection.

        Raises OpenFlowError if the message is refused.

        Returns False if the connection is held, and the message has to be handled again when the
        connection is released.  Answers and errors have to come in the order of the messages, even
        if an error is found by a switch only.

        POX (pox/datapaths/switch.py:234) takes unpacked messages.  To unpack a flow-mod costs as
        much as everything that is done with it here.  Unpacking also raises where Open vSwitch
        answers with an error, and an unknown type is a RuntimeError (:241).  So this takes bytes.
        """
        kind = msg[1]
        refusals = self.big.refusals
        if msg[0] != of.OFP_VERSION:
            return not refusals.awaits(connection) or self._wait(connection)
        if kind == of.OFPT_PACKET_OUT and self._packet_out_again(connection, msg):
            return True
        awaited = refusals.awaits(connection)
        if awaited and kind not in _UNANSWERED:
            return self._wait(connection)
        try:
            change = _CHANGES.get(kind)
            if change is not None:
                if not change.fits(len(msg)):
                    raise bad_request(of.OFPBRC_BAD_LEN)
                if connection.role == nx.NX_ROLE_SLAVE:
                    raise bad_request(of.OFPBRC_EPERM)
            if self.ofp_handlers.get(kind, self._unexpected)(msg, connection) is False:
                return False
        except OpenFlowError:
            if awaited:
                return self._wait(connection)
            self.big.counts.errors += 1
            self._count(kind)
            raise
        self._count(kind)
        return True

    def _count(self, kind: int) -> None:
        if kind == of.OFPT_FLOW_MOD:
            self.big.counts.flow_mods += 1
        elif kind == of.OFPT_PACKET_OUT:
            self.big.counts.packet_outs += 1

    def _wait(self, connection: ControllerConnection) -> bool:
        """
        Hold the connection until the switches have executed or refused all that came before.

        Returns False.
        """
        connection.hold()
        self.big.barrier(connection.release)
        return False

    def _unexpected(self, message: bytes, connection: ControllerConnection) -> None:
        """
        Refuse a message whose type is unknown, or is one that only switches send.

        As in Open vSwitch, the length of a message of a known type is checked first.
        """
        kind, body = message[1], message[8:]
        if kind == of.OFPT_STATS_REPLY:
            if len(body) < 4:
                raise bad_request(of.OFPBRC_BAD_LEN)
            statistic = int.from_bytes(body[:2], "big")
            if statistic == of.OFPST_VENDOR and not nx.is_known_statistic(body[4:]):
                refuse_vendor(body[4:])
            if statistic not in _STATS_REPLY_LENGTHS:
                raise bad_request(of.OFPBRC_BAD_STAT)
            possible = _STATS_REPLY_LENGTHS[statistic].fits(len(body) - 4)
        else:
            possible = kind not in _REPLY_LENGTHS or _REPLY_LENGTHS[kind].fits(len(body))
        raise bad_request(of.OFPBRC_BAD_TYPE if possible else of.OFPBRC_BAD_LEN)

    # --- the connection ------------------------------------------------------------------------

    def _rx_hello(self, message: bytes, connection: ControllerConnection) -> None:
        """
        Refuse a second hello, as Open vSwitch does; the connection has taken the first.

        POX (pox/datapaths/switch.py:266) answers with a hello, its first one.
        """
        self._unexpected(message, connection)

    def _rx_echo_request(self, message: bytes, connection: ControllerConnection) -> None:
        connection.send(messages.echo_reply(message))

    def _answers_echo(self, connection: ControllerConnection, message: bytes) -> bool:
        """Answer an echo request; return False for any other message."""
        if message[:2] != bytes((of.OFP_VERSION, of.OFPT_ECHO_REQUEST)):
            return False
        self._rx_echo_request(message, connection)
        return True

    def _rx_echo_reply(self, message: bytes, connection: ControllerConnection) -> None:
        """Do nothing: the connection has noted already that the controller has sent something."""

    def _rx_vendor(self, message: bytes, connection: ControllerConnection) -> None:
        if len(message) < 16:
            raise bad_request(of.OFPBRC_BAD_LEN)
        vendor, subtype = messages.parse_vendor(message)
        if vendor not in nx.KNOWN_VENDORS:
            raise bad_request(of.OFPBRC_BAD_VENDOR)
        if vendor == nx.NX_VENDOR_ID and subtype == nx.NXT_ROLE_REQUEST:
            self._role_request(message, connection)
        elif vendor == nx.NX_VENDOR_ID and subtype == nx.NXT_SET_PACKET_IN_FORMAT:
            check_length(message, 20)
            wanted = int.from_bytes(message[16:20], "big")
            if wanted > nx.NXPIF_NXT_PACKET_IN2:
                raise bad_request(of.OFPBRC_EPERM)
            if wanted != nx.NXPIF_STANDARD:
                raise bad_request(of.OFPBRC_BAD_SUBTYPE)
        else:
            raise bad_request(of.OFPBRC_BAD_SUBTYPE)

    def _role_request(self, message: bytes, connection: ControllerConnection) -> None:
        check_length(message, 20)
        role = int.from_bytes(message[16:20], "big")
        if role > nx.NX_ROLE_SLAVE:
            raise NiciraError(*nx.NXBRC_BAD_ROLE)
        if role == nx.NX_ROLE_MASTER:
            # There is only one master.  The former one becomes a slave, and is not told.
            for other in self.connections:
                if other.role == nx.NX_ROLE_MASTER:
                    other.set_role(nx.NX_ROLE_SLAVE)
        connection.set_role(role)
        connection.send(messages.pack_role_reply(message, role))

    def _rx_features_request(self, message: bytes, connection: ControllerConnection) -> None:
        check_length(message, 8)
        # As many as the message has room for; OFPST_PORT_DESC lists all.
        ports = list(self.ports.values())[: messages.MOST_PORTS]
        connection.send(
            messages.pack_features(
                message,
                self.dpid,
                TABLES,
                self.features.capability_bits,
                self.features.action_bits,
                b"".join(port.pack() for port in ports),
            )
        )

    def _rx_get_config_request(self, message: bytes, connection: ControllerConnection) -> None:
        check_length(message, 8)
        connection.send(
            messages.pack_config(message, self.big.topology.fragments, connection.miss_send_len)
        )

    def _rx_set_config(self, message: bytes, connection: ControllerConnection) -> None:
        check_length(message, 12)
        flags, miss_send_len = messages.parse_set_config(message)
        if flags & ~_FRAGMENT_FLAGS:
            raise NiciraError(*nx.NXBRC_UNENCODABLE_ERROR)
        if flags & of.OFPC_FRAG_MASK == of.OFPC_FRAG_REASM:
            # Open vSwitch does not reassemble fragments, and keeps its former setting.
            flags = flags & ~of.OFPC_FRAG_MASK | self.big.topology.fragments & of.OFPC_FRAG_MASK
        connection.set_miss_send_len(miss_send_len)
        self.big.topology.set_fragments(flags)

    def _rx_barrier_request(self, message: bytes, connection: ControllerConnection) -> None:
        check_length(message, 8)
        begun = time.monotonic()

        def answers() -> Iterator[bytes]:
            self.big.counts.barriers.add(time.monotonic() - begun)
            yield messages.reply(message, of.OFPT_BARRIER_REPLY, b"")

        bypass = self._bypass_for(connection)
        answer_later(connection, self.big.barrier, answers(), bypass)

    def _bypass_for(self, connection: ControllerConnection) -> Optional[Callable[[bytes], bool]]:
        """
        Return a handler of packet-outs that need not wait for a barrier; None if all have to wait.

        (See ControllerConnection.hold.)  A switch executes messages in the order in which it is
        sent them.  When all switches but one have executed all messages, a packet-out to that one
        is executed after all that the barrier waits for, and need not wait.

        There are three exceptions.  A switch may still refuse a change, or a refused change is
        being undone.  A switch that has (re)connected has not been sent all its flows yet.  A
        switch was sent a new configuration, which may not be in force after one barrier (see
        Session.barrier).
        """
        switch = self.big
        unsettled = switch.unsettled()
        if len(unsettled) > 1 or switch.refusals.undoing or switch.refusals.awaits(connection):
            return None
        if any(
            member.session.configuring or member.state is not State.UP
            for member in switch.topology.ready_members()
        ):
            return None
        behind = unsettled[0] if unsettled else None

        def bypass_barrier(message: bytes) -> bool:
            return (
                message[0] == of.OFP_VERSION
                and message[1] == of.OFPT_PACKET_OUT
                and self._packet_out_again(connection, message, behind)
            )

        return bypass_barrier

    # --- flows ---------------------------------------------------------------------------------

    def _rx_flow_mod(self, message: bytes, connection: ControllerConnection) -> Optional[bool]:
        """OFPT_FLOW_MOD (OpenFlow 1.0.0, 5.3.3 and 4.6)."""
        cookie, command, idle, hard, priority, buffer_id, out_port, flags = flowmods.parse_flow_mod(
            message
        )
        if command > of.OFPFC_DELETE_STRICT:
            raise OpenFlowError(of.OFPET_FLOW_MOD_FAILED, of.OFPFMFC_BAD_COMMAND)
        actions = act.parse(message[flowmods.FLOW_MOD_ACTIONS])
        if flags & ~of.OFPFF_SEND_FLOW_REM:
            _check_flags(flags, idle or hard)
        match = matches.parse(message[flowmods.FLOW_MOD_MATCH])
        if not int.from_bytes(message[8:12], "big") & of.OFPFW_ALL:
            # An exact match has the highest priority, whatever is asked for (OpenFlow 1.0.0, 3.4).
            priority = 0xFFFF
        flows, refusals = self.big.flows, self.big.refusals
        table = flows.table

        deletes = command in (of.OFPFC_DELETE, of.OFPFC_DELETE_STRICT)
        if not deletes and buffer_id != messages.NO_BUFFER:
            raise bad_request(of.OFPBRC_BUFFER_UNKNOWN)
        if command in (of.OFPFC_MODIFY, of.OFPFC_DELETE):
            entries = table.covered(match)
        else:
            entries = table.exact(match, priority)
        unconfirmed = refusals.unconfirmed
        if unconfirmed and (
            not unconfirmed.isdisjoint(entries)
            or flags & of.OFPFF_CHECK_OVERLAP
            and any(each.priority == priority for each in unconfirmed)
        ):
            return self._wait(connection)  # a switch may still refuse one of these flows
        if deletes:
            entries = with_output(entries, out_port)
            if len(entries) <= FLOWS_PER_SLICE:
                flows.end(entries, of.OFPRR_DELETE)
            else:
                # Nothing else is handled before they have ended.  Only an echo need not wait.
                connection.hold(partial(self._answers_echo, connection), withholds=False)
                flows.end_in_slices(entries, of.OFPRR_DELETE, out_port, connection.release)
            return None
        if command != of.OFPFC_ADD:
            if entries:
                kept = cookie if cookie != _KEEP_COOKIE else None
                Modify(flows, refusals, entries, match, kept, actions, connection, message).start()
            if entries or cookie == _KEEP_COOKIE:
                return None
        elif entries and cookie == _KEEP_COOKIE:
            cookie = entries[0].cookie
        # A flow that replaces another overlaps the same flows as that one.
        if flags & of.OFPFF_CHECK_OVERLAP and not entries and table.overlapped(match, priority):
            raise OpenFlowError(of.OFPET_FLOW_MOD_FAILED, of.OFPFMFC_OVERLAP)
        entry = FlowEntry(match, priority, cookie, idle, hard, flags, actions, time.monotonic())
        Add(flows, refusals, entry, connection, message).start()
        return None

    def _packet_out_again(
        self, connection: ControllerConnection, message: bytes, behind: Optional[Member] = None
    ) -> bool:
        """Call Packets.packet_out_again() with a PACKET_OUT that has not been checked yet."""
        done = (
            connection.role != nx.NX_ROLE_SLAVE
            and len(message) >= 16
            and self.big.packets.packet_out_again(connection, message, behind)
        )
        if done:
            self.big.counts.packet_outs += 1
        return done

    def _rx_packet_out(self, message: bytes, connection: ControllerConnection) -> bool:
        buffer_id, in_port, actions_len = messages.parse_packet_out_head(message)
        end = 16 + actions_len
        if end > len(message) or actions_len % 8:
            raise bad_request(of.OFPBRC_BAD_LEN)
        actions = act.parse(message[16:end])
        ordinary = in_port < of.OFPP_MAX
        if not ordinary and in_port not in (of.OFPP_CONTROLLER, of.OFPP_LOCAL, of.OFPP_NONE):
            raise NiciraError(*nx.NXBRC_BAD_IN_PORT)
        if buffer_id != messages.NO_BUFFER:
            raise bad_request(of.OFPBRC_BUFFER_UNKNOWN)
        done = self.big.packets.packet_out(connection, message, in_port, actions, message[end:])
        return done or self._wait(connection)

    # --- ports and queues ----------------------------------------------------------------------

    def _rx_port_mod(self, message: bytes, connection: ControllerConnection) -> None:
        number, hw_addr, config, mask, advertise = messages.parse_port_mod(message)
        where = self.big.port(number)
        # A switch that has come back may have told already that a port is gone.
        if where is None or where[1] not in where[0].ports.all:
            raise OpenFlowError(of.OFPET_PORT_MOD_FAILED, of.OFPPMFC_BAD_PORT)
        if hw_addr != self.big.portlist.ports[number].hw_addr:
            raise OpenFlowError(of.OFPET_PORT_MOD_FAILED, of.OFPPMFC_BAD_HW_ADDR)
        member, port = where
        PortMod(
            self.big.portlist,
            self.big.refusals,
            member,
            port,
            Bits(config, mask & _PORT_CONFIG),
            advertise,
            connection,
            message,
        ).start()

    def _rx_queue_get_config_request(
        self, message: bytes, connection: ControllerConnection
    ) -> None:
        check_length(message, 12)
        number = int.from_bytes(message[8:10], "big")
        where = self.big.port(number)
        if where is None:
            raise OpenFlowError(of.OFPET_QUEUE_OP_FAILED, of.OFPQOFC_BAD_PORT)
        member, port = where
        found: list[bytes] = []

        def ask(done: Callable[[], None]) -> None:
            def answer(kind: int, south_message: bytes) -> bool:
                if kind == of.OFPT_QUEUE_GET_CONFIG_REPLY:
                    found.append(messages.parse_queue_config(south_message))
                done()
                return True

            member.session.request(
                lambda xid: messages.queue_get_config_request(xid, port),
                answer,
                done,
            )

        def answers() -> Iterator[bytes]:
            yield messages.pack_queue_config(message, number, found[0] if found else b"")

        answer_later(connection, ask, answers())


def _check_flags(flags: int, timeouts: int) -> None:
    if flags & ~_KNOWN_FLAGS:
        raise NiciraError(*nx.NXFMFC_BAD_FLAGS)
    if flags & of.OFPFF_EMERG:
        # Open vSwitch has no room for emergency flows.
        code = of.OFPFMFC_BAD_EMERG_TIMEOUT if timeouts else of.OFPFMFC_ALL_TABLES_FULL
        raise OpenFlowError(of.OFPET_FLOW_MOD_FAILED, code)


def check_length(message: bytes, length: int) -> None:
    """Raise OpenFlowError (OFPBRC_BAD_LEN) unless the message has this length."""
    if len(message) != length:
        raise bad_request(of.OFPBRC_BAD_LEN)


def answer_later(
    connection: ControllerConnection,
    ask: Callable[[Callable[[], None]], None],
    answers: Iterator[bytes],
    bypass_barrier: Optional[Callable[[bytes], bool]] = None,
) -> None:
    """
    Answer a request when the switches have answered.

    Open vSwitch answers in the order of the requests, so the connection's next messages wait.

    ask: is called with the function that it has to call when the switches have answered
    answers: makes the messages that are sent then
    bypass_barrier: handles messages that need not wait (see ControllerConnection.hold)
    """
    connection.hold(bypass_barrier)
    ask(lambda: connection.answer(answers))
