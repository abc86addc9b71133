"""Errors as OpenFlow 1.0 messages."""

import struct

import pytest
from lab import openflow10 as of

from edge.openflow.errors import NiciraError, OpenFlowError, error_reply

REQUEST = of.message(of.Type.STATS_REQUEST, b"\0\x63\0\0", xid=0x12345678)


def test_an_error_has_the_xid_and_all_of_the_message():
    reply = of.unpack(OpenFlowError(1, 2).reply(REQUEST))
    assert (reply.version, reply.type, reply.xid) == (1, of.Type.ERROR, 0x12345678)
    assert of.unpack_error(reply.body) == of.Error(1, 2, REQUEST)


def test_an_error_for_another_version_is_of_that_version():
    assert OpenFlowError(1, 0).reply(REQUEST, version=4)[0] == 4


def test_what_only_nicira_has_a_number_for_is_a_vendor_error():
    """The layout is nicira-ext.h's struct nx_vendor_error."""
    error = of.unpack_error(of.unpack(NiciraError(3, 258).reply(REQUEST)).body)
    assert error == of.Error(0xB0C2, 0, struct.pack("!IHH", of.NX_VENDOR, 3, 258) + REQUEST)


@pytest.mark.parametrize("prefix", [b"", b"12345678"])
@pytest.mark.parametrize("size", [65507, 65508, 65515, 65516, 65523, 65524, 65535])
def test_no_error_is_longer_than_a_message_can_be(prefix, size):
    request = of.message(of.Type.ECHO_REQUEST, bytes(size - 8))
    raw = error_reply(1, 1, request, prefix=prefix)
    assert len(raw) == min(12 + len(prefix) + size, 65535)
    assert struct.unpack_from("!H", raw, 2)[0] == len(raw)
    assert raw[12:] == (prefix + request)[: 65535 - 12]
