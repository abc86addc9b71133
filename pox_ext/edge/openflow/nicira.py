"""
Constants of the Nicira extensions.

They are those of Open vSwitch's include/openflow/nicira-ext.h.  pox.openflow.nicira has them too,
but that module can only be imported inside a running POX.  Which actions a controller may use is
decided in actions.py.
"""

NX_VENDOR_ID = 0x00002320
ONF_VENDOR_ID = 0x4F4E4600
KNOWN_VENDORS = (NX_VENDOR_ID, ONF_VENDOR_ID)

NXT_ROLE_REQUEST = 10
NXT_ROLE_REPLY = 11
NXT_FLOW_MOD = 13
NXT_FLOW_MOD_TABLE_ID = 15
NXT_SET_PACKET_IN_FORMAT = 16
NXT_PACKET_IN = 17
NXT_SET_ASYNC_CONFIG2 = 27

NXPIF_STANDARD = 0
NXPIF_NXM = 1
NXPIF_NXT_PACKET_IN2 = 2

NX_ROLE_OTHER = 0
NX_ROLE_MASTER = 1
NX_ROLE_SLAVE = 2

NXST_FLOW = 0
NXST_AGGREGATE = 1
NXST_FLOW_MONITOR = 2

NXAST_RESUBMIT = 1
NXAST_SET_TUNNEL = 2
NXAST_SET_QUEUE = 4
NXAST_POP_QUEUE = 5
NXAST_REG_MOVE = 6
NXAST_REG_LOAD = 7
NXAST_NOTE = 8
NXAST_SET_TUNNEL64 = 9
NXAST_MULTIPATH = 10
NXAST_BUNDLE = 12
NXAST_BUNDLE_LOAD = 13
NXAST_RESUBMIT_TABLE = 14
NXAST_OUTPUT_REG = 15
NXAST_LEARN = 16
NXAST_EXIT = 17
NXAST_DEC_TTL = 18
NXAST_CONTROLLER = 20
NXAST_DEC_TTL_CNT_IDS = 21
NXAST_PUSH_MPLS = 23
NXAST_POP_MPLS = 24
NXAST_SET_MPLS_TTL = 25
NXAST_DEC_MPLS_TTL = 26
NXAST_STACK_PUSH = 27
NXAST_STACK_POP = 28
NXAST_SET_MPLS_LABEL = 30
NXAST_SET_MPLS_TC = 31
NXAST_REG_LOAD2 = 33

# Headers of NXM fields: class (16 bits), field (7), whether there is a mask (1), length (8).
NXM_OF_IN_PORT = 0x00000002
NXM_OF_ETH_TYPE = 0x00000602
NXM_OF_VLAN_TCI_W = 0x00000904
NXM_OF_IP_PROTO = 0x00000C01
NXM_NX_TUN_ID = 0x00012008
NXM_NX_ICMPV6_TYPE = 0x00012A01
NXM_NX_ICMPV6_CODE = 0x00012C01
NXM_NX_COOKIE = 0x00013C08
NXM_NX_COOKIE_W = 0x00013D10
NXM_NX_TUN_IPV4_SRC = 0x00013E04
NXM_NX_TUN_IPV4_DST = 0x00014004

# Errors that OpenFlow 1.0 does not define: an error of type NXET_VENDOR has one of these (type,
# code) in its data.
NXET_VENDOR = 0xB0C2
NXBRC_BAD_ROLE = (1, 513)
NXBRC_BAD_IN_PORT = (1, 514)
NXBRC_UNENCODABLE_ERROR = (1, 521)
NXFMFC_BAD_FLAGS = (3, 258)


def is_known_statistic(body: bytes) -> bool:
    """
    Return whether this is a request or reply of Nicira's own statistics.

    body: what follows the type OFPST_VENDOR (struct nicira_stats_msg)
    """
    vendor, subtype = body[:4], body[4:8]
    return (
        len(body) >= 12
        and int.from_bytes(vendor, "big") == NX_VENDOR_ID
        and int.from_bytes(subtype, "big") in (NXST_FLOW, NXST_AGGREGATE, NXST_FLOW_MONITOR)
    )
