"""Translates actions from the ports of the big switch to the ports of one real switch."""

from collections.abc import Iterable, Mapping
from typing import Callable, NamedTuple, Optional

import pox.openflow.libopenflow_01 as of

from edge.openflow.actions import (
    Actions,
    Enqueue,
    enqueue,
    load_tunnel_destination,
    load_tunnel_key,
    output,
)
from edge.south.rules import KEY_ALL, KEY_FLOOD


class Ingress(NamedTuple):
    """
    What the translation needs to know about the switch where a packet enters, and about the others.

    own: the index of the switch where the packet enters
    tunnel_port: its tunnel port, None if it has none
    ports: its ports that the big switch has
    remote_ips: the tunnel IP (as a number) of every other switch for which it is known, by index
    flood_ips: the tunnel IPs of the other switches that are ready: only these are flooded to
    locate: aggregator port -> (index, port) or None
    queue_keys: (index, port, queue) -> the tunnel key for that queue of another switch's port
    table: the action that does what OFPP_TABLE does
    """

    own: int
    tunnel_port: Optional[int]
    ports: tuple[int, ...]
    remote_ips: dict[int, int]
    flood_ips: tuple[int, ...]
    locate: Callable[[int], Optional[tuple[int, int]]]
    queue_keys: Mapping[tuple[int, int, int], int]
    table: bytes = output(of.OFPP_TABLE)


def translate(actions: Actions, ingress: Ingress) -> bytes:
    """
    The actions that do on the ingress switch what the controller's actions do on the big switch.

    An output to a switch that cannot be reached now is left out.  Tunnel keys for queues of other
    switches are allocated before (see edge.switch.queuekeys); without one, the frame goes to the
    port's default queue.
    """
    out: list[bytes] = []
    loaded_key: Optional[int] = None
    loaded_ip: Optional[int] = None

    def send(key: int, ips: Iterable[int]) -> None:
        nonlocal loaded_key, loaded_ip
        if ingress.tunnel_port is None:
            return
        for ip in ips:
            if loaded_key != key:
                out.append(load_tunnel_key(key))
                loaded_key = key
            if loaded_ip != ip:
                out.append(load_tunnel_destination(ip))
                loaded_ip = ip
            out.append(output(ingress.tunnel_port))

    for step in actions.steps:
        if isinstance(step, bytes):
            out.append(step)
        elif step.port == of.OFPP_TABLE:
            out.append(ingress.table)
            loaded_key = loaded_ip = None  # a flow that matches may load others
        elif step.port == of.OFPP_FLOOD:
            # The tunnel port has OFPPC_NO_FLOOD.
            out.append(output(of.OFPP_FLOOD))
            send(KEY_FLOOD, ingress.flood_ips)
        elif step.port == of.OFPP_ALL:
            out.extend(output(port) for port in ingress.ports)
            send(KEY_ALL, ingress.flood_ips)
        else:
            where = ingress.locate(step.port)
            if where is None:
                continue
            index, port = where
            queue = step.queue if isinstance(step, Enqueue) else None
            if index == ingress.own:
                # The tunnel port is no port of the big switch, so an output to it is left out.
                if port != ingress.tunnel_port:
                    out.append(output(port) if queue is None else enqueue(port, queue))
            elif index in ingress.remote_ips:
                key = port
                if queue is not None:
                    key = ingress.queue_keys.get((index, port, queue), port)
                send(key, (ingress.remote_ips[index],))
    return b"".join(out)
