"""
One real switch: its connection, its ports, and what is installed on it.

Nothing here knows of controllers.  A Member turns what the switch says into calls of its owner
(the big switch), and keeps on the switch what has to be there: the service rules, and a copy of
each flow that concerns it.
"""

import itertools
import logging
import math
import re
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Callable, NamedTuple, Optional

import pox.openflow.libopenflow_01 as of

from edge.openflow import actions as act
from edge.openflow import flowmods, messages, stats
from edge.openflow import nicira as nx
from edge.openflow.errors import OpenFlowError
from edge.openflow.text import actions_text
from edge.poxfixes import in_turns
from edge.south import translate
from edge.south.rules import (
    KEY_QUEUES,
    SERVICE,
    SERVICE_PRIORITY,
    TABLE_REMOTE,
    Rule,
    service_rules,
)

log = logging.getLogger("edge.member")

_TUNNEL_NAME = re.compile(rb"tun\d+$")
_MOST_TRANSLATIONS = 16384
_MOST_FLOWS = 2000000
FLOWS_PER_TURN = 1000  # that are sent to a switch of our own accord before others have their turn

# A silent switch is asked so often whether it is there again, and for so long.
_ASK_AGAIN, _LONGEST_SILENCE = 1.0, 60.0  # seconds
# Open vSwitch tells of a flow's end some time after it is gone, but before another can end.
_LATE = 0.9  # seconds
# A switch that lets us wait for so long, whatever is between, has stood still.
_STALL = 0.5  # seconds
_MENDED = 0.25  # seconds in which it answers when what we say gets to its machine again

_xids = itertools.count(1)


def new_xid() -> int:
    """A transaction id for the switches.  One may go to several of them."""
    return next(_xids) & 0xFFFFFFFF or new_xid()


class Copy(NamedTuple):
    """A flow as it has to be on one switch."""

    cookie: int
    table: int
    match: bytes
    priority: int
    idle_timeout: int
    hard_timeout: int
    flags: int
    actions: bytes

    def add(self, xid: int, actions: Optional[bytes] = None) -> bytes:
        """The flow-mod that adds it, or the same with other actions."""
        return flowmods.add_flow(
            xid,
            self.table,
            self.match,
            self.cookie,
            self.idle_timeout,
            self.hard_timeout,
            self.priority,
            self.flags,
            self.actions if actions is None else actions,
        )


class Pending(NamedTuple):
    """A request that the switch has not answered: what to do with an answer, and without one."""

    answer: Callable[[int, bytes], bool]
    lost: Callable[[], None]


class Growing:
    """A counter of a switch that goes on when the switch begins anew."""

    def __init__(self) -> None:
        self._before = self._last = 0

    def saw(self, count: int) -> None:
        """The switch says that it is so many now."""
        if count < self._last:
            self._before += self._last
        self._last = count

    @property
    def total(self) -> int:
        """All that were counted."""
        return self._before + self._last


class Member:
    """
    One real switch.

    owner: the big switch
    index: the number by which its ports are numbered
    ports: all its ports but OFPP_LOCAL, by number
    tunnel_port: the number of its tunnel port, None while there is none (or more than one)
    tunnel_ip: the address at which the others reach it, None while that is not known
    ready: True while it is connected and gets all that changes
    syncing: True while it is ready and has not been sent yet all that it lacks
    up_since: when it was known what it lacked to be ready, the last time (seconds, monotonic)
    stalled_at: when it said something after it had let us wait, the last time
    lost_at: when it was ready for the last time (seconds, monotonic); -inf if it is the first time
    counters: cookie -> (packets, octets) as the switch last said, for the copies on it
    missing: flows that it should have and has not been sent since it is back
    gone: cookie -> (packets, octets) as it had last said, for copies that it had no more when it
        came back; its FLOW_REMOVED may yet come
    """

    def __init__(self, owner: Any, index: int, dpid: int) -> None:
        self.owner = owner
        self.index = index
        self.dpid = dpid
        self.connection: Any = None
        self.ports: dict[int, messages.PhyPort] = {}
        self._numbered: set[int] = set()  # those that the big switch has
        self.tunnel_port: Optional[int] = None
        self.tunnel_ip: Optional[int] = None
        self.ready = False
        self.syncing = False
        self.up_since = self.lost_at = -math.inf
        self.counters: dict[int, tuple[int, int]] = {}
        self.missing: dict[Any, None] = {}
        self.gone: dict[int, tuple[int, int]] = {}
        self.port_stats: dict[int, bytes] = {}  # port -> its ofp_port_stats but for the number
        # For each table: packets looked up, matched, and taken by its table-miss rule.
        self.looked_up: dict[int, Growing] = defaultdict(Growing)
        self.matched: dict[int, Growing] = defaultdict(Growing)
        self.missed: dict[int, Growing] = defaultdict(Growing)
        self._silent: Any = None  # the connection of a switch that is lost since it does not answer
        self._silent_since = self._asked_at = self._mended_at = 0.0
        self._answered_at = self._heard_at = 0.0
        self.stalled_at = -math.inf
        self._stuck = 0
        self._pending: dict[int, Pending] = {}
        self._rules: dict[Rule, bytes] = {}
        self._queue_keys: dict[tuple[int, int], int] = {}
        # wire form of actions -> the actions, and what they are on this switch
        self._translated: dict[bytes, tuple[act.Actions, bytes]] = {}
        self._translated_all = True  # nothing that was translated has been forgotten
        self._ingress: Optional[translate.Ingress] = None
        self._warned: set[str] = set()
        self._dump: list[stats.FlowStats] = []
        # port -> (config, mask): what the controller has made of it
        self._port_mods: dict[int, tuple[int, int]] = {}
        # How many times it has been sent what changes something, up to which of these it has done
        # all for certain, which was the last that changed its configuration, and how many there
        # had been when it was asked for its flows.
        self._sent = self._done = self._configured = self._sent_before_dump = 0

    def __str__(self) -> str:
        return f"switch {self.index}" if self.index == self.dpid else f"switch {self.dpid:#x}"

    # --- ports ---------------------------------------------------------------------------------

    def numbered(self, port: int) -> bool:
        """True if the big switch has this port."""
        return port in self._numbered

    def own_ports(self) -> list[int]:
        """The ports that the big switch has."""
        return [port for port in self.ports if port in self._numbered]

    def left_out(self) -> list[int]:
        """The ports that the big switch has not, but for the tunnel in use."""
        return [port for port in self.ports if port != self.tunnel_port and not self.numbered(port)]

    def warn_once(self, text: str) -> None:
        """Tell the operator something about this switch, the first time that it is so."""
        if text not in self._warned:
            self._warned.add(text)
            log.warning("%s: %s", self, text)

    def _ports_found(self) -> None:
        """Ports have come or gone: decide which are numbered, and which is the tunnel."""
        self._numbered = {
            number
            for number, port in self.ports.items()
            if 1 <= number <= self.owner.numbers.max_ports and not _TUNNEL_NAME.match(port.name)
        }
        self.owner.packets.forget(self)
        self._find_tunnel()

    def _find_tunnel(self) -> None:
        """Decide which port is the tunnel, and say so if that cannot be decided."""
        tunnels = sorted(
            number for number, port in self.ports.items() if _TUNNEL_NAME.match(port.name)
        )
        names = ", ".join(self.ports[number].name.decode() for number in tunnels)
        if not tunnels:
            self.warn_once(
                "has no tunnel port (one named tunN): only its own ports reach each other; "
                "add one, for example with scripts/aggregator.sh"
            )
        elif len(tunnels) > 1:
            self.warn_once(
                f"has more than one tunnel port ({names}): none is used, and only its own ports "
                "reach each other; leave one of them"
            )
        tunnel = tunnels[0] if len(tunnels) == 1 else None
        if tunnel != self.tunnel_port:
            self.tunnel_port = tunnel
            self.owner.tunnel_changed(self)
        left_out = sorted(set(self.left_out()) - set(tunnels))
        if left_out:
            first = left_out[0]
            name = self.ports[first].name.decode(errors="replace")
            others = f" and {len(left_out) - 1} more" if left_out[1:] else ""
            self.warn_once(
                f"port {first} ({name}){others} cannot be numbered, being above "
                f"{self.owner.numbers.max_ports}, and is left out; give such ports lower numbers "
                "(ofport_request), or start with a larger --max_ports"
            )

    def _hold_back_floods(self) -> None:
        """FLOOD on the switch must not go where the big switch's FLOOD does not."""
        for number, port in self.ports.items():
            if not self.numbered(number) and not port.config & of.OFPPC_NO_FLOOD:
                self.send(_no_flood(port))
                self.ports[number] = port._replace(config=port.config | of.OFPPC_NO_FLOOD)

    def modify_port(
        self,
        number: int,
        config: int,
        mask: int,
        advertise: int = 0,
        xid: Optional[int] = None,
    ) -> None:
        """
        Change a port's OFPPC_* bits, now and whenever the switch comes back, and, unless it is
        0, what it advertises (OFPPF_*).

        The switch does not tell the one who asked; so the port's new bits are noted here.
        """
        port = self.ports[number]
        old_config, old_mask = self._port_mods.get(number, (0, 0))
        self._port_mods[number] = (old_config & ~mask | config & mask, old_mask | mask)
        xid = xid or new_xid()
        self.send(messages.port_mod(xid, number, port.hw_addr, config, mask, advertise))
        self._configured = self._sent
        self.ports[number] = port._replace(config=port.config & ~mask | config & mask)

    # --- connection ----------------------------------------------------------------------------

    def connect(self, connection: Any) -> None:
        """Take over a connection whose handshake is done, and read what is on the switch."""
        silent, self._silent = self._silent, None
        if silent is not None and silent is not connection:
            silent.disconnect("taken over by a new connection")
        self.connection = connection
        connection.intercept = self._received
        self._warned.clear()
        self.send(messages.set_packet_in_format(new_xid()) + messages.use_table_ids(new_xid()))
        self.configure(self.owner.fragments)
        # Asked again, though POX has: what has changed since then would be missed.
        self.request(messages.features_request, self._features, lambda: None)

    def _features(self, kind: int, message: bytes) -> bool:
        self.ports = {}
        for port in messages.parse_features(message):
            if port.port_no < of.OFPP_MAX:
                self.ports[port.port_no] = port
            elif not port.config & of.OFPPC_NO_FLOOD:
                self.send(_no_flood(port))  # OFPP_LOCAL, which the big switch has not
        self._ports_found()
        self._hold_back_floods()
        for number, (config, mask) in self._port_mods.items():
            if number in self.ports:
                self.modify_port(number, config, mask)
        self._sent_before_dump = self._sent
        self.request(stats.dump_flows, self._sync_part, lambda: None)
        return True

    def configure(self, fragments: int) -> None:
        """Tell the switch how to handle fragments (OFPC_FRAG_*); packet-ins come whole."""
        self.send(messages.set_config(new_xid(), fragments, 0xFFFF))
        self._configured = self._sent

    def closed(self, connection: Any) -> None:
        """A connection is closed; perhaps it was that of this switch."""
        if connection is self._silent:
            self._silent = None
        elif connection is self.connection:
            self._lose(connection.reason)

    def _lose(self, reason: str) -> None:
        self.connection = None
        was_ready, self.ready = self.ready, False
        self.syncing = False
        if was_ready:
            self.lost_at = time.monotonic()
        self._rules = {}
        self._dump = []
        self.forget_translations()
        pending, self._pending = self._pending, {}
        for request in pending.values():
            try:
                request.lost()
            except Exception as e:  # the others must be told all the same
                log.error("%s: %s: %s", self, type(e).__name__, e)
                log.debug("Details:", exc_info=True)
        self.owner.member_lost(self, was_ready, reason)

    def send(self, data: bytes, changes: bool = True) -> None:
        """
        Send messages; without effect if it is not connected.

        changes: False for what makes no difference to anything that is sent later
        """
        if self.connection is not None:
            self._sent += changes
            self.connection.send(data)

    def request(
        self,
        build: Callable[[int], bytes],
        answer: Callable[[int, bytes], bool],
        lost: Callable[[], None],
    ) -> None:
        """
        Send a request.

        build: makes the message of a transaction id
        answer: is given the type and the bytes of each message that answers it, and says
            whether that was the last
        lost: is called instead if the connection goes before that
        """
        if self.connection is None:
            lost()
            return
        if not self._pending:
            # It has until now answered all that it was asked for.
            self._answered_at = self._heard_at = time.monotonic()
        xid = new_xid()
        self._pending[xid] = Pending(answer, lost)
        self.connection.send(build(xid))

    def barrier(self, done: Callable[[], None]) -> None:
        """Call done() when all that was sent before has been done, or when the switch is lost."""
        sent = self._sent

        def answer(kind: int, message: bytes) -> bool:
            self._done = max(self._done, sent)
            done()
            return True

        def again(kind: int, message: bytes) -> bool:
            # Open vSwitch answers before packets are treated by a new configuration, which is
            # from the next round of its main loop on.
            self.request(messages.barrier_request, answer, done)
            return True

        self.request(messages.barrier_request, again if self.configuring else answer, done)

    @property
    def settled(self) -> bool:
        """True if it has done all that it was sent, as barriers have shown."""
        return self._sent <= self._done

    @property
    def configuring(self) -> bool:
        """True if it may not go by its new configuration yet."""
        return self._configured > self._done

    def watch(self, now: float, timeout: float) -> None:
        """
        Give up a switch that has not answered anything for timeout seconds, though it was asked.

        What else it says does not count, since it may not hear us; that it reads does.
        """
        if self.connection is None:
            self._watch_silent(now)
            return
        if now > self.up_since + _LATE:
            self.gone = {}
        before, self._stuck = self._stuck, self.connection.stuck
        if self._stuck < before:
            self._answered_at = now
        silence = now - self._answered_at
        if silence < timeout / 3:
            return
        if not self._pending:
            self.request(messages.echo_request, lambda kind, message: True, lambda: None)
        elif silence >= timeout:
            reason = f"it has not answered for {silence:.0f} s"
            if self.connection.stuck:  # what waits would have to be kept
                self.connection.disconnect(reason)
            else:
                self._fall_silent(reason, now)

    def _fall_silent(self, reason: str, now: float) -> None:
        """
        The switch is lost; but it may only be hanging, or its cable cut for a moment.

        Open vSwitch knows nothing of that, and would wait before it made another connection; so
        when it goes on it is heard at once on the one that it has.
        """
        silent = self.connection
        self._lose(reason)
        self._silent, self._silent_since, self._asked_at = silent, now, now
        self._mended_at = math.inf
        silent.intercept = self._hear_again

    def _watch_silent(self, now: float) -> None:
        silent = self._silent
        if silent is None:
            return
        if now - self._silent_since >= _LONGEST_SILENCE or silent.stuck:
            silent.disconnect("silent for too long")
        elif silent.unacknowledged:
            # Its cable is cut: this is to be the latest time at which it was.
            self._mended_at = now
        elif self._mended_at + _MENDED < now:
            # It hears us again.  But its kernel holds back what it says until what was lost is sent
            # again, perhaps not before as much time again has passed; a new connection is faster.
            silent.disconnect("the way to it was cut, and it still does not answer")
        elif now - self._asked_at >= _ASK_AGAIN:
            self._asked_at = now
            silent.send(messages.echo_request(new_xid()))

    def _hear_again(self, kind: int, message: bytes) -> bool:
        """Messages of a switch that was silent; False leaves them to POX."""
        if kind not in _ANSWERS and kind != of.OFPT_FLOW_REMOVED:
            # It need not hear us.  But it may want an echo.
            return kind != of.OFPT_ECHO_REQUEST
        self.connect(self._silent)
        return self._received(kind, message)

    def _received(self, kind: int, message: bytes) -> bool:
        """Every message from the switch comes by here first; False leaves it to POX."""
        if kind == of.OFPT_VENDOR:
            if message[8:16] == _NXT_PACKET_IN:
                self.owner.packets.packet_in(self, message)
            return True
        xid = int.from_bytes(message[4:8], "big")
        pending = self._pending.get(xid)
        if pending is not None and kind in _ANSWERS:
            self._answered(xid, pending, kind, message)
        elif kind == of.OFPT_FLOW_REMOVED:
            self._heard()
            self.owner.flow_removed(self, messages.parse_flow_removed(message))
        elif kind == of.OFPT_PORT_STATUS:
            self._port_status(message[8], messages.parse_phy_port(message, 16))
        elif kind == of.OFPT_ERROR:
            self.owner.refusals.refused(self, xid, message)
        elif kind == of.OFPT_ECHO_REQUEST:
            return False
        return True

    def _heard(self) -> float:
        """It goes on with what it has to do; returns the time."""
        now = time.monotonic()
        if self._pending and now - self._heard_at > _STALL:
            self.stalled_at = now
        self._heard_at = now
        return now

    def _answered(self, xid: int, pending: Pending, kind: int, message: bytes) -> None:
        self._answered_at = self._heard()
        for older in list(itertools.takewhile(lambda each: each != xid, self._pending)):
            # Switches answer in order, so this one will not be answered any more.
            log.warning("%s: leaves a request unanswered", self)
            self._pending.pop(older).lost()
        try:
            last = pending.answer(kind, message)
        except Exception:
            # Whoever waits for this must not wait for ever.
            self._pending.pop(xid, None)
            pending.lost()
            raise
        if last:
            self._pending.pop(xid, None)

    def _port_status(self, reason: int, port: messages.PhyPort) -> None:
        number = port.port_no
        if number >= of.OFPP_MAX:
            return
        reach = self.reach()
        if reason == of.OFPPR_DELETE:
            self.ports.pop(number, None)
            self._port_mods.pop(number, None)  # another port may come there, as it is
        else:
            self.ports[number] = port
        self._ports_found()
        self._hold_back_floods()
        if self.ready:
            self.update_service_rules()
            self.owner.ports_changed(self)
            if reach != self.reach():
                self.owner.topology_changed()

    def reach(self) -> tuple[Optional[int], Optional[int], tuple[int, ...]]:
        """All of this switch that other switches' flows, or its own, are translated with."""
        return self.tunnel_port, self.tunnel_ip, tuple(sorted(self.own_ports()))

    # --- what is installed ---------------------------------------------------------------------

    def update_service_rules(self) -> None:
        """Make the service rules right by their difference."""
        rules = self._wanted_rules()
        # Deepest table first: a rule must not send packets where nothing is ready for them.
        for rule in sorted(rules, reverse=True):
            if self._rules.get(rule) != rules[rule]:
                command = of.OFPFC_MODIFY_STRICT if rule in self._rules else of.OFPFC_ADD
                self._change_rule(command, rule, rules[rule])
        for rule in sorted(self._rules.keys() - rules.keys()):
            self._change_rule(of.OFPFC_DELETE_STRICT, rule)
        self._rules = rules

    def _wanted_rules(self) -> dict[Rule, bytes]:
        return service_rules(
            self.tunnel_port,
            self.own_ports(),
            self.left_out(),
            self._queue_keys,
            self.owner.has_lowest,
        )

    def _change_rule(
        self, command: int, rule: Rule, actions: bytes = b"", tells: bool = True
    ) -> None:
        # The lowest rule of a table is never deleted by us: see rule_removed().
        flags = of.OFPFF_SEND_FLOW_REM if tells and not rule.priority else 0
        self.send(
            flowmods.nicira_flow_mod(
                new_xid(), command, rule.table, rule.match, SERVICE, rule.priority, actions, flags
            )
        )

    def rule_removed(self, priority: int) -> None:
        """A service rule is gone from the switch."""
        if not priority and self.ready:
            self.connection.disconnect("somebody else has deleted its flows; it is set up again")

    def has_queue_key(self, port: int, queue: int) -> bool:
        """True if there is a tunnel key that stands for this queue of this port."""
        return (port, queue) in self._queue_keys

    def queue_key(self, port: int, queue: int) -> int:
        """The tunnel key that stands for this queue of this port."""
        key = self._queue_keys.get((port, queue))
        if key is None:
            key = self._queue_keys[port, queue] = KEY_QUEUES + len(self._queue_keys)
            if self.ready and self.tunnel_port is not None:
                rule = Rule(TABLE_REMOTE, SERVICE_PRIORITY, flowmods.match_tunnel_key(key))
                self._rules[rule] = act.enqueue(port, queue)
                self._change_rule(of.OFPFC_ADD, rule, self._rules[rule])
        return key

    @property
    def has_queue_keys(self) -> bool:
        """True if there is a tunnel key for any queue of a port."""
        return bool(self._queue_keys)

    def forget_queue_keys(self) -> None:
        """No flow uses any of them, and nothing that was translated."""
        self._queue_keys = {}
        if self.ready:
            self.update_service_rules()

    def _sync_part(self, kind: int, message: bytes) -> bool:
        if kind != of.OFPT_STATS_REPLY:
            log.error("%s: does not tell its flows; it is not an Open vSwitch", self)
            self.connection.disconnect("not an Open vSwitch")
            return True
        self._dump.extend(stats.parse_flows(message))
        if len(self._dump) > _MOST_FLOWS:
            self.connection.disconnect(f"it says that it has more than {_MOST_FLOWS} flows")
            return True
        if stats.is_more(message):
            return False
        dump, self._dump = self._dump, []
        self._sync(dump)
        return True

    def _sync(self, dump: list[stats.FlowStats]) -> None:
        """
        Bring the switch up to date by the difference between what it has and what it has to have.
        """
        stale: list[stats.FlowStats] = []
        present: dict[int, stats.FlowStats] = {}
        wanted = self._wanted_rules()
        self._rules = {}
        for flow in dump:
            rule = Rule(flow.table, flow.priority, flow.match)
            if flow.cookie == SERVICE and rule in wanted:
                self._rules[rule] = flow.actions
            elif self.owner.has_cookie(flow.cookie) and flow.cookie not in present:
                present[flow.cookie] = flow
            else:
                stale.append(flow)
        anew = not self._rules
        self.gone = {}
        self.update_service_rules()
        self.ready = self.syncing = True
        self._done = max(self._done, self._sent_before_dump)
        self.owner.packets.forget_outs()
        wrong: list[Any] = []
        missing: list[Any] = []
        kept = 0
        for entry, cookie in self.owner.flows_for(self, present, anew):
            flow = present.pop(cookie, None)
            if flow is None:
                missing.append(entry)
            elif flow.actions != self.translated_or_none(entry.actions):
                wrong.append(entry)
            else:
                kept += 1
        self.up_since = time.monotonic()
        self.missing = dict.fromkeys(missing)
        stale.extend(present.values())
        log.info(
            "%s: up, %d ports; flows: %d kept, %d added, %d changed, %d removed",
            self,
            len(self.own_ports()),
            kept,
            len(missing),
            len(wrong),
            len(stale),
        )
        in_turns(self._make_right(self._corrections(missing, wrong, stale)))

    def _make_right(self, corrections: Iterator[None]) -> Iterator[None]:
        """
        Send what the switch needs, some of it a turn, and then say that it is as it should be.

        It is ready, so what the controllers change meanwhile is sent at once.  Of a flow that is
        still missing it takes no notice then, and gets the flow later as it is then.
        """
        connection = self.connection
        for number, _ in enumerate(corrections, 1):
            if number % FLOWS_PER_TURN == 0:
                yield
                if self.connection is not connection:
                    return
        self.syncing = False
        self.owner.member_ready(self)

    def _corrections(
        self, missing: list[Any], wrong: list[Any], stale: list[stats.FlowStats]
    ) -> Iterator[None]:
        for entry in missing:
            del self.missing[entry]
            yield self.owner.put(entry, self)
        for entry in wrong:
            yield self.owner.renew_actions(entry, self)
        for flow in stale:
            if flow.cookie == SERVICE and not flow.priority:
                # Another run's: it must not tell (see rule_removed) that it is deleted.
                rule = Rule(flow.table, flow.priority, flow.match)
                self._change_rule(of.OFPFC_ADD, rule, tells=False)
            # By its cookie too: what has just been added in its place stays.
            yield self.send(
                flowmods.nicira_flow_mod(
                    new_xid(),
                    of.OFPFC_DELETE_STRICT,
                    flow.table,
                    flow.match + flowmods.match_cookie(flow.cookie),
                    priority=flow.priority,
                )
            )

    def ingress(self) -> translate.Ingress:
        """What the translation has to know of this switch."""
        if self._ingress is None:
            self._ingress = self.owner.ingress_of(self)
        return self._ingress

    def forget_translations(self) -> None:
        """What was translated may not be what is on the switch."""
        self._ingress = None
        self._translated = {}
        self._translated_all = True
        self.owner.packets.forget_outs()

    def translate_again(self) -> Optional[set[bytes]]:
        """
        The ports or the other switches have changed: translate anew.

        Returns the actions (their wire form) whose translation has stayed the same, None if that
        is so for all.
        """
        before, complete = self._translated, self._translated_all
        self.forget_translations()
        same = {
            wire
            for wire, (actions, translation) in before.items()
            if self.translated_or_none(actions) == translation
        }
        return None if complete and len(same) == len(before) else same

    def translated(self, actions: act.Actions) -> bytes:
        """
        The actions as this switch has to do them on a packet that enters here.

        Raises OpenFlowError (OFPBAC_TOO_MANY) if no message to the switch has room for them.
        """
        known = self._translated.get(actions.wire)
        if known is None:
            if len(self._translated) >= _MOST_TRANSLATIONS:
                self._translated = {}
                self._translated_all = False
            known = actions, translate.translate(actions, self.ingress())
            if len(known[1]) > flowmods.LONGEST_ACTIONS:
                raise OpenFlowError(of.OFPET_BAD_ACTION, of.OFPBAC_TOO_MANY)
            if log.isEnabledFor(logging.DEBUG):
                north, south_actions = map(actions_text, (actions.wire, known[1]))
                log.debug("%s: actions %s are here %s", self, north, south_actions)
            self._translated[actions.wire] = known
        return known[1]

    def translated_or_none(self, actions: act.Actions) -> bytes:
        """The same; but actions that have grown too long since they were accepted do nothing."""
        try:
            return self.translated(actions)
        except OpenFlowError:
            self.warn_once(
                "a flow's actions have become more than a message can hold, since they name so "
                "many ports of other switches; there it drops its packets"
            )
            return b""


def _no_flood(port: messages.PhyPort) -> bytes:
    bit = of.OFPPC_NO_FLOOD
    return messages.port_mod(new_xid(), port.port_no, port.hw_addr, bit, bit)


_NXT_PACKET_IN = nx.NX_VENDOR_ID.to_bytes(4, "big") + nx.NXT_PACKET_IN.to_bytes(4, "big")
_ANSWERS = frozenset(
    (
        of.OFPT_ERROR,
        of.OFPT_FEATURES_REPLY,
        of.OFPT_ECHO_REPLY,
        of.OFPT_STATS_REPLY,
        of.OFPT_BARRIER_REPLY,
        of.OFPT_QUEUE_GET_CONFIG_REPLY,
    )
)
