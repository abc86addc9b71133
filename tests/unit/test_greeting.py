"""The first messages of a switch's connection."""

import struct

import pytest
from lab import openflow10 as of

from edge.poxfixes import greeting


def hello(version, *elements):
    body = b"".join(
        struct.pack("!HH", kind, 4 + len(data)) + data + bytes(-(4 + len(data)) % 8)
        for kind, data in elements
    )
    return struct.pack("!BBHI", version, of.Type.HELLO, 8 + len(body), 0) + body


def bitmap(*versions):
    return 1, struct.pack("!I", sum(1 << version for version in versions))


@pytest.mark.parametrize(
    "message, versions",
    [
        (hello(1), {1}),
        (hello(4), {1, 2, 3, 4}),
        (hello(4, bitmap(4)), {4}),
        (hello(6, bitmap(1, 4, 6)), {1, 4, 6}),
        (hello(4, (77, b"what?"), bitmap(4)), {4}),
        (hello(4, (1, b"")), {1, 2, 3, 4}),
        (hello(4) + b"\0\1\0\0", {1, 2, 3, 4}),
        (hello(0), set()),
    ],
)
def test_the_versions_that_a_hello_offers(message, versions):
    offered = greeting.versions_offered(message)
    assert {number for number in range(8) if offered >> number & 1} == versions


def test_the_answer_to_other_versions_is_open_vswitchs():
    answer = greeting.hello_failed(1 << 4 | 1 << 6)
    version, kind, length, _, error, code = struct.unpack_from("!BBHIHH", answer)
    assert (version, kind, length, error, code) == (6, of.Type.ERROR, len(answer), 0, 0)
    expected = b"We support version 0x01, you support version 0x06, no common versions."
    assert answer[12:] == expected
    assert greeting.reason_of_failure(answer) == expected.decode()


def test_other_errors_give_no_reason():
    assert greeting.reason_of_failure(of.message(of.Type.ERROR, b"\0\1\0\0text")) is None
    assert greeting.reason_of_failure(of.message(of.Type.ERROR)) is None
    assert greeting.reason_of_failure(of.message(of.Type.ECHO_REQUEST, b"\0\0\0\0text")) is None


def test_a_peers_text_cannot_forge_a_line():
    data = b"a\nERROR:edge: forged\r\x1b[2J\xff" + b"x" * 1000
    shown = greeting.printable(data)
    assert shown.isprintable() and shown.isascii()
    assert shown.startswith("a\\x0aERROR") and len(shown) < 300


@pytest.mark.parametrize(
    "data, said",
    [
        (b"GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.0"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "SSH-2.0-OpenSSH_9.2"),
        (bytes.fromhex("160301020001000001fc0303"), "TLS"),
        (bytes(20), "00 00 00 00 00 00 00 00"),
        (b"\r\n\r\n\r\n\r\n", "0d 0a 0d 0a"),
    ],
)
def test_what_is_no_openflow_is_described(data, said):
    assert said in greeting.what_it_is(data)
