"""
How the big switch refuses a message: the exceptions to raise, and the bytes of the error.

OpenFlow's error codes are constants of POX's libopenflow_01, Nicira's are in nicira.py.
"""

import struct

import pox.openflow.libopenflow_01 as of

from edge.openflow.nicira import NX_VENDOR_ID, NXET_VENDOR

_ERROR = struct.Struct("!BBHLHH")
_LONGEST = 0xFFFF  # bytes of a message: what ofp_header.length can hold

_NICIRA_ERROR = struct.Struct("!LHH")


class OpenFlowError(Exception):
    """
    Raised when a message is refused.

    type, code: as in ofp_error_msg (OpenFlow 1.0.0, 5.4.4)
    """

    def __init__(self, type: int, code: int) -> None:
        super().__init__(f"OpenFlow error, type {type} code {code}")
        self.type = type
        self.code = code

    def reply(self, message: bytes, version: int = of.OFP_VERSION) -> bytes:
        """Return the ofp_error_msg that refuses this message (see error_reply)."""
        return error_reply(self.type, self.code, message, version)


class NiciraError(OpenFlowError):
    """
    Raised when a message is refused with an error that only Nicira's extension defines.

    type, code: as in struct nx_vendor_error (OVS, include/openflow/nicira-ext.h)
    """

    def reply(self, message: bytes, version: int = of.OFP_VERSION) -> bytes:
        """Return the ofp_error_msg of type NXET_VENDOR with the Nicira error in its data."""
        reason = _NICIRA_ERROR.pack(NX_VENDOR_ID, self.type, self.code)
        return error_reply(NXET_VENDOR, 0, message, version, reason)


def error_reply(
    type: int, code: int, message: bytes, version: int = of.OFP_VERSION, prefix: bytes = b""
) -> bytes:
    """
    Return an ofp_error_msg with the xid of the message, and as much of the message as fits.

    prefix: bytes that stand before the message in the error's data
    """
    data = (prefix + message)[: _LONGEST - _ERROR.size]
    xid = int.from_bytes(message[4:8], "big")
    return _ERROR.pack(version, of.OFPT_ERROR, _ERROR.size + len(data), xid, type, code) + data


def bad_request(code: int) -> OpenFlowError:
    """The error of type OFPET_BAD_REQUEST with this code (an OFPBRC_*)."""
    return OpenFlowError(of.OFPET_BAD_REQUEST, code)
