"""The floor: what POX's own library takes for a task, in a process that does nothing else.

Reads lines from its standard input and prints the seconds of processor time that each took:

    flow_mods COMMAND N S    unpack N flow-mods (ADD, MODIFY_STRICT, DELETE_STRICT), and construct
                             and pack the matching nx_flow_mod for each of S switches
    read FILE                unpack the OpenFlow messages in a file, as a controller on POX does

The nx_flow_mod of an ADD has the message's match and one output; that of a MODIFY or DELETE names
its flow by the cookie.  Tunnel actions, which the big switch has to add, are not in the floor.
"""

import logging
import sys
import time

import pox.core

pox.core.initialize(False, False, False)
logging.disable(logging.CRITICAL)

import pox.openflow.libopenflow_01 as of  # noqa: E402
import pox.openflow.nicira as nx  # noqa: E402
from pox.lib.addresses import IPAddr  # noqa: E402
from pox.openflow import util  # noqa: E402

FIRST_IP = 10 << 24


def _message(command, number):
    match = of.ofp_match(dl_type=0x0800, nw_dst=IPAddr(FIRST_IP + number))
    actions = [] if command == of.OFPFC_DELETE_STRICT else [of.ofp_action_output(port=1)]
    return of.ofp_flow_mod(
        match=match, command=command, cookie=number, priority=0x8000, actions=actions
    ).pack()


def flow_mods(name, count, switches):
    """Seconds for N flow-mods to S switches."""
    command = of.ofp_flow_mod_command_rev_map["OFPFC_" + name]
    messages = [_message(command, number) for number in range(int(count))]
    switches = range(int(switches))
    by_cookie = command != of.OFPFC_ADD
    south = {of.OFPFC_MODIFY_STRICT: of.OFPFC_MODIFY, of.OFPFC_DELETE_STRICT: of.OFPFC_DELETE}
    command = south.get(command, command)
    start = time.process_time()
    for message in messages:
        flow_mod = of.ofp_flow_mod()
        flow_mod.unpack(message)
        for _ in switches:
            match = nx.nx_match()
            if by_cookie:
                match.append(nx.NXM_NX_COOKIE(flow_mod.cookie))
            else:
                match.append(nx.NXM_OF_ETH_TYPE(flow_mod.match.dl_type))
                match.append(nx.NXM_OF_IP_DST(flow_mod.match.nw_dst))
            nx.nx_flow_mod(
                table_id=2,
                command=command,
                cookie=flow_mod.cookie,
                priority=flow_mod.priority,
                match=match,
                actions=flow_mod.actions,
            ).pack()
    return time.process_time() - start


def read(path):
    """Seconds to unpack the messages in a file."""
    with open(path, "rb") as file:
        data = file.read()
    unpackers = util.make_type_to_unpacker_table()
    start = time.process_time()
    offset = 0
    while offset < len(data):
        offset, _ = unpackers[data[offset + 1]](data, offset)
    return time.process_time() - start


TASKS = {"flow_mods": flow_mods, "read": read}

for line in sys.stdin:
    task, *arguments = line.split()
    print(TASKS[task](*arguments), flush=True)
