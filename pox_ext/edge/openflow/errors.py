"""What the big switch refuses, and how OpenFlow 1.0 says it."""

import struct

import pox.openflow.libopenflow_01 as of

from edge.openflow.nicira import NX_VENDOR_ID, NXET_VENDOR

_ERROR = struct.Struct("!BBHLHH")
_LONGEST = 0xFFFF

_NICIRA_ERROR = struct.Struct("!LHH")


class OpenFlowError(Exception):
    """
    A message that is refused.

    type, code: as in ofp_error_msg (OpenFlow 1.0.0, 5.4.4)
    """

    def __init__(self, type: int, code: int) -> None:
        super().__init__(f"OpenFlow error, type {type} code {code}")
        self.type = type
        self.code = code

    def reply(self, message: bytes, version: int = of.OFP_VERSION) -> bytes:
        """The ofp_error_msg for this message: with its xid, and with all of it that has room."""
        return error_reply(self.type, self.code, message, version)


class NiciraError(OpenFlowError):
    """A message that is refused for a reason that only Nicira's extension has a number for."""

    def reply(self, message: bytes, version: int = of.OFP_VERSION) -> bytes:
        reason = _NICIRA_ERROR.pack(NX_VENDOR_ID, self.type, self.code)
        return error_reply(NXET_VENDOR, 0, message, version, reason)


def error_reply(
    type: int, code: int, message: bytes, version: int = of.OFP_VERSION, prefix: bytes = b""
) -> bytes:
    """
    An ofp_error_msg for a message, with the message's xid.

    prefix: what stands before the message's bytes in the error's data
    """
    data = (prefix + message)[: _LONGEST - _ERROR.size]
    xid = int.from_bytes(message[4:8], "big")
    return _ERROR.pack(version, of.OFPT_ERROR, _ERROR.size + len(data), xid, type, code) + data


def bad_request(code: int) -> OpenFlowError:
    """The error of type OFPET_BAD_REQUEST with this code (an OFPBRC_*)."""
    return OpenFlowError(of.OFPET_BAD_REQUEST, code)
