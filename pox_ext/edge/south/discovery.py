"""
Which tunnel IP belongs to which switch, and which tunnels work.

A probe is an LLDP frame that one switch sends into its tunnel, with tunnel key 0, to one of the
candidates for tunnel IPs.  The switch that receives the probe sends it to us in a packet-in.  The
tunnel destination of that packet-in is the switch's own tunnel IP.

In the long run, the number of probes must not grow with the square of the number of switches.

- An IP without a known owner is probed by two switches at a time, in turn.
- Once an IP has an owner, each other switch probes it until one probe has come through.  That also
  resolves the tunnel's neighbour, so that the first frame of a host is not lost.
- From then on a few switches at a time, in turn, check that their tunnels to the IP still work.  If
  one does not, the tunnel counts as broken.  Some other tunnels from that switch, and some other
  tunnels to that IP, are then checked at once.
- A switch that is busy, or that has much to tell on a slow line, is no broken tunnel.  A probe
  counts as lost only when its sender has answered an echo request that was sent behind the probe,
  and then its receiver another one.
- These checks also keep the tunnels' neighbours.  A userspace switch forgets a neighbour to which
  it has sent nothing for 900 seconds, and the next frame to it is lost.
- An owner that no other switch reaches any more probes its own IP, too: another switch may have
  this IP now.
"""

import logging
import math
import secrets
import struct
import time
from collections.abc import Iterable
from ipaddress import IPv4Address
from typing import Callable, Optional, TypeVar

from edge.openflow import actions as act
from edge.openflow import messages
from edge.poxfixes.loglimit import LogLimit
from edge.south.member import Member
from edge.south.rules import KEY_DISCOVERY
from edge.south.xids import new_xid

log = logging.getLogger("edge.discovery")

T = TypeVar("T")

FIRST_RETRY, LONGEST_RETRY = 0.1, 10.0  # seconds
# How long an answer may take, and after how many missing answers a tunnel counts as broken.  (The
# first frames through a tunnel are lost while its neighbour is resolved.)
ANSWER, TRIES = 1.0, 3  # seconds, probes
SILENT = 5.0  # seconds without an answer after which the operator is warned
MOST_NAMED = 20  # in one line of the log
# Within which time each tunnel is checked, if MOST_CHECKS are enough for that.  It is what a
# userspace switch remembers a neighbour for (lib/tnl-neigh-cache.c), less what a check may be late.
KEPT = 850.0  # seconds
# How many tunnels to one IP are checked at a time, at most.  It is enough for
# KEPT * MOST_CHECKS / LONGEST_RETRY = 340 of them.
MOST_CHECKS = 4
_GOLDEN = 0.6180339887  # its multiples, without their whole part, are spread evenly

_LLDP_HEADER = bytes.fromhex("0180c200000e 02000000007e 88cc")
_SOURCE = struct.Struct("!L")


def _tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!H", kind << 9 | len(value)) + value


def _names(ips: list[int]) -> str:
    """These IPs for a line of the log, which names some of many."""
    names = ", ".join(str(IPv4Address(ip)) for ip in ips[:MOST_NAMED])
    return names + (f" and {len(ips) - MOST_NAMED} more" if len(ips) > MOST_NAMED else "")


def checks_at_once(tunnels: int) -> int:
    """How many of the tunnels to one IP are checked in each LONGEST_RETRY seconds."""
    return min(max(1, math.ceil(tunnels * LONGEST_RETRY / KEPT)), MOST_CHECKS)


class RoundRobin:
    """Takes some of many things at a time, in turn."""

    def __init__(self) -> None:
        self._start = 0

    def take(self, things: list[T], count: int) -> list[T]:
        """The next `count` of the things, or all if there are fewer."""
        count = min(count, len(things))
        self._start += count
        return [things[(self._start + step) % len(things)] for step in range(count)]


class _Target:
    """
    One tunnel IP.

    unreached: the switches from which no probe has come through (yet)
    unconfirmed: senders being re-checked, with the number of probes that they missed, TRIES at most
    certain: those of them that have missed TRIES probes for certain (see Discovery._make_certain)
    retry: seconds from one round of probes to the next
    asked_since: since when it has been probed without finding an owner (seconds, monotonic)
    reported: True once the operator has been warned that it has no owner
    cut_off: True while no other switch reaches its owner; the operator has been warned then
    sent, due: when the last round of probes was, and when the next is due (seconds, monotonic)
    finding, checking: whose turn it is to find its owner, and to check a tunnel to it
    """

    def __init__(self, ip: int) -> None:
        self.ip = ip
        self.unreached: dict[Member, None] = {}
        self.unconfirmed: dict[Member, int] = {}
        self.certain: set[Member] = set()
        self.finding, self.checking = RoundRobin(), RoundRobin()
        self.retry = FIRST_RETRY
        self.sent = self.due = 0.0
        self.asked_since: Optional[float] = None
        self.reported = False
        self.cut_off = False
        self._phase = ip * _GOLDEN % 1 * LONGEST_RETRY

    def wait(self) -> None:
        """All is well: be due again after LONGEST_RETRY, not in the same turn as other targets."""
        self.due = self.sent + LONGEST_RETRY - (self.sent - self._phase) % LONGEST_RETRY

    def count_probes(self) -> list[Member]:
        """Each unconfirmed sender has sent a probe; return those that have now sent TRIES."""
        last = []
        for sender, missing in self.unconfirmed.items():
            self.certain.discard(sender)
            if missing < TRIES:
                self.unconfirmed[sender] = missing + 1
                if missing + 1 == TRIES:
                    last.append(sender)
        return last

    def look_soon(self) -> None:
        """Probe it again soon: it may be reached from more switches now."""
        self.retry, self.due = FIRST_RETRY, 0.0


class Discovery:
    """
    Finds the owners of the tunnel IPs.

    ips: the candidates, as numbers
    members: gives the switches that are ready
    found: is called with a switch and its tunnel IP, when that has been discovered
    """

    def __init__(
        self,
        ips: Iterable[int],
        members: Callable[[], list[Member]],
        found: Callable[[Member, int], None],
    ) -> None:
        self._targets = {ip: _Target(ip) for ip in ips}
        self._members = members
        self._found = found
        self._nonce = secrets.token_bytes(16)
        self._learned: dict[Member, int] = {}  # the candidate from add_candidate()
        self._announced = False
        self._alone_since: Optional[float] = None
        self._suspecting = RoundRobin()
        self._foreign = LogLimit()

    @property
    def ips(self) -> list[int]:
        """The candidates."""
        return list(self._targets)

    def add_candidate(self, member: Member, ip: int) -> None:
        """
        Add a candidate: the address from which a switch has connected.

        The former candidate of this switch is forgotten, unless it has turned out to be a tunnel IP
        or another switch has connected from it, too.
        """
        before = self._learned.get(member)
        self._learned[member] = ip
        if before is not None and before not in self._learned.values():
            self._forget(before)
        if ip not in self._targets:
            target = self._targets[ip] = _Target(ip)
            target.unreached = dict.fromkeys(self._members())

    def _forget(self, ip: int) -> None:
        if all(member.tunnel_ip != ip for member in self._learned):
            self._targets.pop(ip, None)

    def owner(self, ip: int) -> Optional[Member]:
        """The ready switch that has this tunnel IP; None if it is not known."""
        return next((m for m in self._members() if m.tunnel_ip == ip), None)

    @property
    def complete(self) -> bool:
        """True when every candidate has an owner."""
        known = {member.tunnel_ip for member in self._members()}
        return bool(self._targets) and known >= self._targets.keys()

    def changed(self, member: Member) -> None:
        """A switch has connected, or its tunnel port has changed: have it probe all IPs soon."""
        for target in self._targets.values():
            target.unreached[member] = None
            target.unconfirmed.pop(member, None)
            target.look_soon()

    def lost(self, member: Member) -> None:
        """A switch is lost: it takes no part any more."""
        for target in self._targets.values():
            target.unreached.pop(member, None)
            target.unconfirmed.pop(member, None)

    def unreached(self, ip: int) -> list[Member]:
        """The switches from which no probe to this IP comes through, or none has come yet."""
        return [m for m in self._targets[ip].unreached if m.tunnel_ip != ip]

    def tick(self, now: float, awake_since: float) -> None:
        """
        Send the probes that are due.  To be called some ten times a second.

        awake_since: when the last pause of this process ended.  A probe that was sent before may
            come through until ANSWER seconds after, and a warning has its time from then on.
        """
        able = [m for m in self._members() if m.ports.tunnel is not None]
        owners = {m.tunnel_ip: m for m in able}
        self._complain_of_few(able, now, awake_since)
        silent: list[_Target] = []
        for target in self._targets.values():
            if target.due > now or not able:
                continue
            if target.unconfirmed and awake_since + ANSWER > now:
                continue
            owner = owners.get(target.ip)
            if owner is None:
                senders = target.finding.take(able, 2)
                if self._is_silent(target, able, now, awake_since):
                    silent.append(target)
            else:
                target.asked_since, target.reported = None, False
                senders = self._senders(target, owner, [m for m in able if m is not owner])
            for sender in senders:
                self._probe(sender, target.ip)
            if owner is not None:
                for sender in target.count_probes():
                    self._make_certain(target, sender, owner)
            target.sent = now
            target.due = now + (ANSWER if target.unconfirmed else target.retry)
            target.retry = min(target.retry * 2, LONGEST_RETRY)
        self._complain(silent)
        self._announce()

    def _senders(self, target: _Target, owner: Member, others: list[Member]) -> list[Member]:
        """
        The switches that have to probe an IP with a known owner.

        others: all switches with a tunnel port except the owner
        """
        for sender in [m for m in target.unconfirmed if m in target.certain]:
            self._broken(target, sender)
        senders = [m for m in target.unreached if m in others]
        reached = [m for m in others if m not in target.unreached]
        if not senders:
            target.retry = LONGEST_RETRY
        if target.retry == LONGEST_RETRY:
            senders = target.finding.take(senders, 2)
            if not target.unconfirmed:
                target.unconfirmed = dict.fromkeys(
                    target.checking.take(reached, checks_at_once(len(reached))), 0
                )
            if others and not reached and not target.cut_off:
                target.cut_off = True
                target.retry = ANSWER  # the first probes from its owner may be lost, too
                log.warning(
                    "%s: nothing that the others send to its tunnel IP %s comes out there; do "
                    "the switches reach it, does another machine have that address, and is "
                    "lldp:enable off at its tunnel port?",
                    owner,
                    IPv4Address(target.ip),
                )
        if target.cut_off:
            senders = [*target.finding.take(senders, 2), owner]
        return senders + list(target.unconfirmed)

    def _make_certain(self, target: _Target, sender: Member, owner: Member) -> None:
        """
        Find out whether the last probe is lost, or just late: both switches may be busy.

        The sender answers when it has sent the probe, and then the owner when it has told us of all
        that had come before.
        """

        def sent(kind: int, message: bytes) -> bool:
            owner.session.request(messages.echo_request, told, unknown)
            return True

        def told(kind: int, message: bytes) -> bool:
            if target.unconfirmed.get(sender) == TRIES:
                target.certain.add(sender)
            return True

        def unknown() -> None:
            if target.unconfirmed.get(sender) == TRIES:
                target.unconfirmed[sender] -= 1  # the next probe decides

        sender.session.request(messages.echo_request, sent, unknown)

    def _broken(self, target: _Target, sender: Member) -> None:
        """A tunnel is broken: have other tunnels at both of its ends checked."""
        del target.unconfirmed[sender]
        target.unreached[sender] = None
        able = [m for m in self._members() if m.ports.tunnel is not None and m is not sender]
        others = [m for m in able if m.tunnel_ip != target.ip and m not in target.unreached]
        for other in self._suspecting.take(others, 2):
            target.unconfirmed.setdefault(other, 0)
        owned = {m.tunnel_ip for m in able} - {target.ip}
        targets = [t for t in self._targets.values() if t.ip in owned and sender not in t.unreached]
        for each in self._suspecting.take(targets, 2):
            each.unconfirmed.setdefault(sender, 0)
            each.due = 0.0

    def _is_silent(
        self, target: _Target, able: list[Member], now: float, awake_since: float
    ) -> bool:
        """True once, when nobody has answered for an IP for a while."""
        if len(able) < 2:
            return False  # no other switch could receive a probe
        if target.asked_since is None:
            target.asked_since = now
        elif now - max(target.asked_since, awake_since) >= SILENT and not target.reported:
            target.reported = True
            return True
        return False

    def _complain(self, silent: list[_Target]) -> None:
        """Warn of IPs that have no owner: of all that have become so together in one line."""
        if not silent:
            return
        log.warning(
            "No switch answers for tunnel IP %s: is it the local_ip of a connected switch's "
            "tunnel port, can the switches reach it, and is lldp:enable off at that port?",
            _names([target.ip for target in silent]),
        )

    def _complain_of_few(self, able: list[Member], now: float, awake_since: float) -> None:
        """Warn if fewer than two switches have a tunnel port; once until there are two again."""
        if len(able) > 1 or len(self._targets) < 2:
            self._alone_since = None
        elif self._alone_since is None:
            self._alone_since = now
        elif now - max(self._alone_since, awake_since) >= SILENT:
            self._alone_since = math.inf
            log.warning(
                "%s with a tunnel port is connected; waiting for the others, at tunnel IPs %s",
                "Only one switch" if able else "No switch",
                _names(self.ips),
            )

    def _announce(self) -> None:
        complete = self.complete
        if complete and not self._announced:
            log.info("All %d tunnel IPs are discovered", len(self._targets))
        self._announced = complete

    def _probe(self, sender: Member, ip: int) -> None:
        frame = b"".join(
            (
                _LLDP_HEADER,
                _tlv(1, b"\x07edge.aggregator"),
                _tlv(2, b"\x07" + str(IPv4Address(ip)).encode()),
                _tlv(3, struct.pack("!H", 120)),
                # An organisationally specific TLV, whose nonce only this process knows.
                _tlv(127, b"\x02\0\0\x7e" + self._nonce + _SOURCE.pack(sender.index)),
                _tlv(0, b""),
            )
        )
        assert sender.ports.tunnel is not None, "only switches with a tunnel port send probes"
        actions = (
            act.load_tunnel_key(KEY_DISCOVERY)
            + act.load_tunnel_destination(ip)
            + act.output(sender.ports.tunnel)
        )
        probe = messages.packet_out(new_xid(), 0xFFFF, actions, frame.ljust(60, b"\0"))
        sender.session.send(probe, changes=False)

    def received(self, member: Member, packet: messages.PacketIn) -> bool:
        """
        A switch has sent a packet-in from its tunnel, with the tunnel key KEY_DISCOVERY.

        Returns False if it is foreign: none of the probes of this object.
        """
        place = packet.data.find(self._nonce)
        if place < 0:
            self._complain_of_foreign(member, packet)
            return False
        ip = packet.tunnel_destination
        if ip not in self._targets:
            return True
        target = self._targets[ip]
        (sender,) = _SOURCE.unpack_from(packet.data, place + len(self._nonce))
        for other in list(target.unreached):
            if other.index == sender:
                del target.unreached[other]
                if self.unreached(ip):
                    target.look_soon()
        for other in list(target.unconfirmed):
            if other.index == sender:
                del target.unconfirmed[other]
        if not self.unreached(ip) and not target.unconfirmed:
            target.wait()
        if target.cut_off and member.tunnel_ip == ip:
            target.cut_off = False
            log.info("%s: is reached at tunnel IP %s again", member, IPv4Address(ip))
        if member.tunnel_ip != ip:
            target.look_soon()
            target.unconfirmed.clear()
            target.cut_off = False
            if member.tunnel_ip in self._targets:
                self._targets[member.tunnel_ip].look_soon()  # another owner, or none
            for other in self._members():
                target.unreached[other] = None
            log.info("%s: tunnel IP is %s", member, IPv4Address(ip))
            self._found(member, ip)
        return True

    def _complain_of_foreign(self, member: Member, packet: messages.PacketIn) -> None:
        """Anybody in the underlay can send such a frame: one line a minute for each address."""
        source = IPv4Address(packet.tunnel_source or 0)
        unsaid = self._foreign.due(source, time.monotonic())
        if unsaid is not None:
            more = f", and {unsaid} more since the last such line" if unsaid else ""
            log.warning(
                "%s: a foreign frame from %s came out of the tunnel%s: without a key, or with that "
                "of probes; it is dropped. Who else sends tunnel packets to this switch?",
                member,
                source,
                more,
            )
