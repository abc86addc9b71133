"""Bytes of Nicira messages and actions, laid out by hand as in nicira-ext.h."""

import struct

from lab import openflow10 as of


def vendor(message, subtype):
    """Check the header of a Nicira message of this subtype; return what follows it."""
    assert struct.unpack_from("!BB", message) == (1, of.Type.VENDOR)
    assert struct.unpack_from("!H", message, 2)[0] == len(message)
    assert struct.unpack_from("!II", message, 8) == (of.NX_VENDOR, subtype)
    return message[16:]


def padded(match):
    return match + bytes(-len(match) % 8)


def nicira(subtype, body=b""):
    return of.vendor_action(struct.pack("!H", subtype) + body)


def reg_load(field, value, bits):
    """Build an NXAST_REG_LOAD of a whole field, as in nicira-ext.h."""
    return nicira(7, struct.pack("!HIQ", bits - 1, field, value))


SET_FIELDS = [
    of.set_vlan_vid(5),
    of.set_vlan_vid(0),
    of.set_vlan_vid(0xFFF),
    of.set_vlan_pcp(7),
    of.strip_vlan(),
    of.set_dl_src("00:00:00:00:00:01"),
    of.set_dl_dst("01:00:5e:00:00:01"),
    of.set_nw_src("10.0.0.1"),
    of.set_nw_dst("10.0.0.2"),
    of.set_nw_tos(0xFC),
    of.set_tp_src(80),
    of.set_tp_dst(0xFFFF),
]
ALIKE_EVERYWHERE = [
    nicira(8, b"note!!"),
    nicira(17, bytes(6)),  # exit
    nicira(18, bytes(6)),  # dec_ttl
    reg_load(0x00010004, 7, 32),  # reg0
    nicira(6, struct.pack("!HHHII", 32, 0, 0, 0x00010004, 0x00010204)),  # reg0 to reg1
    nicira(23, struct.pack("!H4x", 0x8847)),  # push_mpls
]
