"""
What a controller's messages do to the big switch.

One function a message type.  The order of the checks, and the errors, are Open vSwitch's.
"""

import logging
import struct
import time
from collections.abc import Iterator
from typing import Callable, NamedTuple, Optional

import pox.openflow.libopenflow_01 as of

from edge.north import statistics
from edge.north.connections import Controller, Peer
from edge.openflow import actions as act
from edge.openflow import match as matches
from edge.openflow import messages
from edge.openflow import nicira as nx
from edge.openflow.errors import NiciraError, OpenFlowError
from edge.south.member import Member
from edge.switch.bigswitch import BigSwitch
from edge.switch.events import Requester
from edge.switch.flowtable import FlowEntry, with_output

log = logging.getLogger("edge.north")

_HEADER = struct.Struct("!BBHL")
_PORT_STATUS = struct.Struct("!BBHLB7x")
_FEATURES = struct.Struct("!BBHLQLB3xLL")
_FLOW_MOD = struct.Struct("!QHHHHLHH")
_PORT_MOD = struct.Struct("!H6sLLL4x")

# What Open vSwitch says of itself: as many tables, no buffers, all statistics (but no spanning
# tree), all actions.
_TABLES = 254
_CAPABILITIES = (
    of.OFPC_FLOW_STATS
    | of.OFPC_TABLE_STATS
    | of.OFPC_PORT_STATS
    | of.OFPC_QUEUE_STATS
    | of.OFPC_ARP_MATCH_IP
)
_ACTIONS = 0xFFF


class _Lengths(NamedTuple):
    """The lengths that something can have: the least, and that with any number of steps."""

    least: int
    step: int = 0

    def fits(self, length: int) -> bool:
        more = length - self.least
        return more == 0 or (more > 0 and self.step > 0 and more % self.step == 0)


# Of the messages that only switches send, after the header.
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
    statistics.OFPST_PORT_DESC: _Lengths(0, 48),
    of.OFPST_VENDOR: _Lengths(0, 1),
}

# What a controller with the role of a slave may not do, and how long it is.
_CHANGES = {
    of.OFPT_PACKET_OUT: _Lengths(16, 1),
    of.OFPT_FLOW_MOD: _Lengths(72, 8),
    of.OFPT_PORT_MOD: _Lengths(32),
}

# What is not answered when it is good, or is answered behind a barrier.
_UNANSWERED = frozenset((of.OFPT_FLOW_MOD, of.OFPT_PACKET_OUT, of.OFPT_BARRIER_REQUEST))

_KEEP_COOKIE = 0xFFFFFFFFFFFFFFFF
_KNOWN_FLAGS = of.OFPFF_SEND_FLOW_REM | of.OFPFF_CHECK_OVERLAP | of.OFPFF_EMERG
_FRAGMENT_FLAGS = 0x0007
# All that a port of an OpenFlow 1.0 switch can be told (OFPPC_*).
_PORT_CONFIG = 0x7F


def _bad_request(code: int) -> OpenFlowError:
    return OpenFlowError(of.OFPET_BAD_REQUEST, code)


class Northbound:
    """The big switch as its controllers see it."""

    def __init__(self, dpid: int) -> None:
        self.dpid = dpid
        self.big: BigSwitch
        self.upstreams: list[Controller] = []  # that it connects to, connected or not
        self.connections: list[Peer] = []  # all OpenFlow connections that there are
        self._handlers: dict[int, Callable[[Peer, bytes], Optional[bool]]] = {
            of.OFPT_ECHO_REQUEST: self._echo_request,
            of.OFPT_ECHO_REPLY: lambda peer, message: None,
            of.OFPT_VENDOR: self._vendor,
            of.OFPT_FEATURES_REQUEST: self._features_request,
            of.OFPT_GET_CONFIG_REQUEST: self._get_config_request,
            of.OFPT_SET_CONFIG: self._set_config,
            of.OFPT_PACKET_OUT: self._packet_out,
            of.OFPT_FLOW_MOD: self._flow_mod,
            of.OFPT_PORT_MOD: self._port_mod,
            of.OFPT_STATS_REQUEST: lambda peer, message: statistics.answer(self.big, peer, message),
            of.OFPT_BARRIER_REQUEST: self._barrier_request,
            of.OFPT_QUEUE_GET_CONFIG_REQUEST: self._queue_get_config_request,
        }

    # --- what the big switch tells (see BigSwitchEvents) -----------------------------------------

    def opened(self, peer: Peer) -> None:
        """A controller has connected."""
        self.connections.append(peer)

    def closed(self, peer: Peer) -> None:
        """A controller's connection is gone; its flows stay."""
        self.connections.remove(peer)

    def port_status(
        self, reason: int, port: messages.PhyPort, but: Optional[Requester] = None
    ) -> None:
        message = _PORT_STATUS.pack(of.OFP_VERSION, of.OFPT_PORT_STATUS, 64, 0, reason)
        for peer in self.connections:
            if peer is not but:
                peer.tell(of.OFPT_PORT_STATUS, message + port.pack())

    def packet_in(self, message: bytes) -> None:
        for peer in self.connections:
            peer.tell(of.OFPT_PACKET_IN, message)

    def flow_removed(self, message: bytes) -> None:
        for peer in self.connections:
            peer.tell(of.OFPT_FLOW_REMOVED, message)

    def switch_up(self, index: int, dpid: int) -> None:
        pass

    def switch_lost(self, index: int, dpid: int, reason: str) -> None:
        pass

    def tunnel_found(self, index: int, dpid: int, ip: int) -> None:
        pass

    def handle(self, peer: Peer, message: bytes) -> bool:
        """
        Do what a message says, unless it is of another version, which is the peer's to answer.
        Raises OpenFlowError if it is refused.

        Returns False if the peer is held and the message has to be handled when it is released:
        answers and errors come in the order of the messages, also when it is for the switches to
        find the errors.
        """
        kind = message[1]
        if message[0] != of.OFP_VERSION:
            return not self.big.refusals.awaited(peer) or self._wait(peer)
        if kind == of.OFPT_PACKET_OUT and self._packet_out_again(peer, message):
            return True
        awaited = self.big.refusals.awaited(peer)
        if awaited and kind not in _UNANSWERED:
            return self._wait(peer)
        try:
            if self._handle(peer, message) is False:
                return False
        except OpenFlowError:
            if awaited:
                return self._wait(peer)
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

    def _wait(self, peer: Peer) -> bool:
        """Hold the peer until the switches have done, or refused, all that was asked before."""
        peer.hold()
        self.big.barrier(peer.release)
        return False

    def _handle(self, peer: Peer, message: bytes) -> Optional[bool]:
        """False if the peer is held and it has to be handled again."""
        change = _CHANGES.get(message[1])
        if change is not None:
            if not change.fits(len(message)):
                raise _bad_request(of.OFPBRC_BAD_LEN)
            if peer.role == nx.NX_ROLE_SLAVE:
                raise _bad_request(of.OFPBRC_EPERM)
        return self._handlers.get(message[1], self._unexpected)(peer, message)

    def _unexpected(self, peer: Peer, message: bytes) -> None:
        """A type that there is not, or that only switches send; those are looked at first."""
        kind, body = message[1], message[8:]
        if kind == of.OFPT_STATS_REPLY:
            if len(body) < 4:
                raise _bad_request(of.OFPBRC_BAD_LEN)
            statistic = int.from_bytes(body[:2], "big")
            if statistic == of.OFPST_VENDOR and not nx.is_known_statistic(body[4:]):
                statistics.refuse_vendor(body[4:])
            if statistic not in _STATS_REPLY_LENGTHS:
                raise _bad_request(of.OFPBRC_BAD_STAT)
            possible = _STATS_REPLY_LENGTHS[statistic].fits(len(body) - 4)
        else:
            possible = kind not in _REPLY_LENGTHS or _REPLY_LENGTHS[kind].fits(len(body))
        raise _bad_request(of.OFPBRC_BAD_TYPE if possible else of.OFPBRC_BAD_LEN)

    # --- the connection ------------------------------------------------------------------------

    def _echo_request(self, peer: Peer, message: bytes) -> None:
        peer.send(message[:1] + bytes([of.OFPT_ECHO_REPLY]) + message[2:])

    def _vendor(self, peer: Peer, message: bytes) -> None:
        if len(message) < 16:
            raise _bad_request(of.OFPBRC_BAD_LEN)
        vendor, subtype = struct.unpack_from("!LL", message, 8)
        if vendor not in nx.KNOWN_VENDORS:
            raise _bad_request(of.OFPBRC_BAD_VENDOR)
        if vendor == nx.NX_VENDOR_ID and subtype == nx.NXT_ROLE_REQUEST:
            self._role_request(peer, message)
        elif vendor == nx.NX_VENDOR_ID and subtype == nx.NXT_SET_PACKET_IN_FORMAT:
            check_length(message, 20)
            wanted = int.from_bytes(message[16:20], "big")
            if wanted > nx.NXPIF_NXT_PACKET_IN2:
                raise _bad_request(of.OFPBRC_EPERM)
            if wanted != nx.NXPIF_STANDARD:
                raise _bad_request(of.OFPBRC_BAD_SUBTYPE)
        else:
            raise _bad_request(of.OFPBRC_BAD_SUBTYPE)

    def _role_request(self, peer: Peer, message: bytes) -> None:
        check_length(message, 20)
        role = int.from_bytes(message[16:20], "big")
        if role > nx.NX_ROLE_SLAVE:
            raise NiciraError(*nx.NXBRC_BAD_ROLE)
        if role == nx.NX_ROLE_MASTER:
            # There is one master; the one before is not told.
            for other in self.connections:
                if other.role == nx.NX_ROLE_MASTER:
                    other.role = nx.NX_ROLE_SLAVE
        peer.role = role
        body = struct.pack("!LLL", nx.NX_VENDOR_ID, nx.NXT_ROLE_REPLY, role)
        peer.send(reply(message, of.OFPT_VENDOR, body))

    def _features_request(self, peer: Peer, message: bytes) -> None:
        check_length(message, 8)
        # As many as there is room for; OFPST_PORT_DESC tells all.
        most = (0xFFFF - _FEATURES.size) // messages.PHY_PORT_LEN
        ports = b"".join(port.pack() for port in list(self.big.ports.values())[:most])
        peer.send(
            _FEATURES.pack(
                of.OFP_VERSION,
                of.OFPT_FEATURES_REPLY,
                _FEATURES.size + len(ports),
                xid_of(message),
                self.dpid,
                0,
                _TABLES,
                _CAPABILITIES,
                _ACTIONS,
            )
            + ports
        )

    def _get_config_request(self, peer: Peer, message: bytes) -> None:
        check_length(message, 8)
        body = struct.pack("!HH", self.big.fragments, peer.miss_send_len)
        peer.send(reply(message, of.OFPT_GET_CONFIG_REPLY, body))

    def _set_config(self, peer: Peer, message: bytes) -> None:
        check_length(message, 12)
        flags, miss_send_len = struct.unpack_from("!HH", message, 8)
        if flags & ~_FRAGMENT_FLAGS:
            raise NiciraError(*nx.NXBRC_UNENCODABLE_ERROR)
        if flags & of.OFPC_FRAG_MASK == of.OFPC_FRAG_REASM:
            # Open vSwitch does not reassemble, and stays with what it did.
            flags = flags & ~of.OFPC_FRAG_MASK | self.big.fragments & of.OFPC_FRAG_MASK
        peer.miss_send_len = miss_send_len
        self.big.set_fragments(flags)

    def _barrier_request(self, peer: Peer, message: bytes) -> None:
        check_length(message, 8)
        begun = time.monotonic()

        def messages() -> Iterator[bytes]:
            self.big.counts.barriers.add(time.monotonic() - begun)
            yield reply(message, of.OFPT_BARRIER_REPLY, b"")

        answer_later(peer, self.big.barrier, messages(), self._overtaker(peer))

    def _overtaker(self, peer: Peer) -> Optional[Callable[[bytes], bool]]:
        """
        What does packet-outs that need not wait until a barrier is answered (see Peer.hold).

        A switch does in their order all that it is sent.  So, where every other one has done its
        part, a packet-out to it is behind all that the barrier is about: but for what is undone, or
        may be, since a switch refuses it; for flows that a switch which has come back has not been
        given yet; and for a configuration, which is not in force behind one barrier (see
        Member.barrier).
        """
        switch = self.big
        unsettled = switch.unsettled()
        if len(unsettled) > 1 or switch.refusals.undoing or switch.refusals.awaited(peer):
            return None
        if any(member.configuring or member.syncing for member in switch.ready_members()):
            return None
        behind = unsettled[0] if unsettled else None

        def overtake(message: bytes) -> bool:
            return (
                message[0] == of.OFP_VERSION
                and message[1] == of.OFPT_PACKET_OUT
                and self._packet_out_again(peer, message, behind)
            )

        return overtake

    # --- flows ---------------------------------------------------------------------------------

    def _flow_mod(self, peer: Peer, message: bytes) -> Optional[bool]:
        """OFPT_FLOW_MOD (OpenFlow 1.0.0, 5.3.3 and 4.6)."""
        cookie, command, idle, hard, priority, buffer_id, out_port, flags = _FLOW_MOD.unpack_from(
            message, 48
        )
        if command > of.OFPFC_DELETE_STRICT:
            raise OpenFlowError(of.OFPET_FLOW_MOD_FAILED, of.OFPFMFC_BAD_COMMAND)
        actions = act.parse(message[72:])
        if flags & ~of.OFPFF_SEND_FLOW_REM:
            _check_flags(flags, idle or hard)
        match = matches.parse(message[8:48])
        if not int.from_bytes(message[8:12], "big") & of.OFPFW_ALL:
            # An exact match has the highest priority, whatever is asked for (OpenFlow 1.0.0, 3.4).
            priority = 0xFFFF
        table = self.big.table

        deletes = command in (of.OFPFC_DELETE, of.OFPFC_DELETE_STRICT)
        if not deletes and buffer_id != messages.NO_BUFFER:
            raise _bad_request(of.OFPBRC_BUFFER_UNKNOWN)
        if command in (of.OFPFC_MODIFY, of.OFPFC_DELETE):
            entries = table.covered(match)
        else:
            entries = table.exact(match, priority)
        doubtful = self.big.refusals.doubtful
        if doubtful and (
            not doubtful.isdisjoint(entries)
            or flags & of.OFPFF_CHECK_OVERLAP
            and any(each.priority == priority for each in doubtful)
        ):
            return self._wait(peer)  # first see whether a switch has refused one of them
        if deletes:
            entries = with_output(entries, out_port)
            self.big.delete(entries)
            return None
        if command != of.OFPFC_ADD:
            if entries:
                kept = cookie if cookie != _KEEP_COOKIE else None
                self.big.modify(entries, match, kept, actions, peer, message)
            if entries or cookie == _KEEP_COOKIE:
                return None
        elif entries and cookie == _KEEP_COOKIE:
            cookie = entries[0].cookie
        # A flow that replaces one overlaps no more than that did.
        if flags & of.OFPFF_CHECK_OVERLAP and not entries and table.overlapped(match, priority):
            raise OpenFlowError(of.OFPET_FLOW_MOD_FAILED, of.OFPFMFC_OVERLAP)
        entry = FlowEntry(match, priority, cookie, idle, hard, flags, actions, time.monotonic())
        self.big.add(entry, peer, message)
        return None

    def _packet_out_again(
        self, peer: Peer, message: bytes, behind: Optional[Member] = None
    ) -> bool:
        """Packets.packet_out_again, of a PACKET_OUT of which nothing has been checked yet."""
        done = (
            peer.role != nx.NX_ROLE_SLAVE
            and len(message) >= 16
            and self.big.packets.packet_out_again(peer, message, behind)
        )
        if done:
            self.big.counts.packet_outs += 1
        return done

    def _packet_out(self, peer: Peer, message: bytes) -> bool:
        buffer_id, in_port, actions_len = struct.unpack_from("!LHH", message, 8)
        end = 16 + actions_len
        if end > len(message) or actions_len % 8:
            raise _bad_request(of.OFPBRC_BAD_LEN)
        actions = act.parse(message[16:end])
        ordinary = in_port < of.OFPP_MAX
        if not ordinary and in_port not in (of.OFPP_CONTROLLER, of.OFPP_LOCAL, of.OFPP_NONE):
            raise NiciraError(*nx.NXBRC_BAD_IN_PORT)
        if buffer_id != messages.NO_BUFFER:
            raise _bad_request(of.OFPBRC_BUFFER_UNKNOWN)
        done = self.big.packets.packet_out(peer, message, in_port, actions, message[end:])
        return done or self._wait(peer)

    # --- ports and queues ----------------------------------------------------------------------

    def _port_mod(self, peer: Peer, message: bytes) -> None:
        number, hw_addr, config, mask, advertise = _PORT_MOD.unpack_from(message, 8)
        port = self.big.ports.get(number)
        if port is None:
            raise OpenFlowError(of.OFPET_PORT_MOD_FAILED, of.OFPPMFC_BAD_PORT)
        if hw_addr != port.hw_addr:
            raise OpenFlowError(of.OFPET_PORT_MOD_FAILED, of.OFPPMFC_BAD_HW_ADDR)
        mask &= _PORT_CONFIG
        self.big.modify_port(peer, number, config, mask, advertise, message)

    def _queue_get_config_request(self, peer: Peer, message: bytes) -> None:
        check_length(message, 12)
        number = int.from_bytes(message[8:10], "big")
        where = self.big.port(number)
        if where is None:
            raise OpenFlowError(of.OFPET_QUEUE_OP_FAILED, of.OFPQOFC_BAD_PORT)
        member, port = where
        answers: list[bytes] = []

        def ask(done: Callable[[], None]) -> None:
            def answer(kind: int, south_message: bytes) -> bool:
                if kind == of.OFPT_QUEUE_GET_CONFIG_REPLY:
                    answers.append(south_message[16:])
                done()
                return True

            member.request(
                lambda xid: (
                    _HEADER.pack(of.OFP_VERSION, of.OFPT_QUEUE_GET_CONFIG_REQUEST, 12, xid)
                    + struct.pack("!H2x", port)
                ),
                answer,
                done,
            )

        def messages() -> Iterator[bytes]:
            queues = answers[0] if answers else b""
            body = struct.pack("!H6x", number) + queues
            yield reply(message, of.OFPT_QUEUE_GET_CONFIG_REPLY, body)

        answer_later(peer, ask, messages())


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
        raise _bad_request(of.OFPBRC_BAD_LEN)


def xid_of(message: bytes) -> int:
    """The transaction id of a message."""
    return int.from_bytes(message[4:8], "big")


def reply(request: bytes, kind: int, body: bytes) -> bytes:
    """A message that answers another: it has its xid."""
    return _HEADER.pack(of.OFP_VERSION, kind, 8 + len(body), xid_of(request)) + body


def answer_later(
    peer: Peer,
    ask: Callable[[Callable[[], None]], None],
    messages: Iterator[bytes],
    overtake: Optional[Callable[[bytes], bool]] = None,
) -> None:
    """
    Answer when the switches have.

    Open vSwitch answers in the order of the requests, so the peer's next messages wait.

    ask: is given the function to call when all is there
    messages: the answer, not made before that
    overtake: does what need not wait (see Peer.hold)
    """
    peer.hold(overtake)
    ask(lambda: peer.answer(messages))
