"""Bytes that no switch should send, to a repaired POX."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from poxharness import FEATURES_REPLY, HELLO, SOON, Switch, free_port, message, run_pox

TYPES = st.integers(0, 255).filter(lambda msg_type: msg_type != FEATURES_REPLY)
PLAUSIBLE = st.one_of(st.integers(0, 21).filter(lambda msg_type: msg_type != FEATURES_REPLY), TYPES)


@pytest.fixture(scope="module")
def port():
    """The port of a POX that has our repairs."""
    port = free_port()
    process = run_pox(
        ["poxfixes_probe", "openflow.of_01", f"--port={port}", "--address=127.0.0.1"],
        quiet=True,
    )
    yield port
    alive = process.poll() is None
    process.terminate()
    process.wait(SOON)
    assert alive


@pytest.fixture(scope="module")
def switch(port):
    """A switch that stays connected."""
    switch = Switch(port, 1)
    switch.shake_hands()
    return switch


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(PLAUSIBLE, st.binary(max_size=300)), max_size=10))
def test_a_connection_outlives_every_message_whose_length_is_right(switch, messages):
    switch.sock.sendall(b"".join(message(msg_type, body) for msg_type, body in messages))
    assert switch.answered()


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_no_bytes_of_one_connection_are_noticed_by_another(port, switch, data, after_hello):
    stranger = Switch(port, 2)
    if after_hello:
        stranger.send(HELLO)
    stranger.sock.sendall(data)
    assert switch.answered()
    stranger.close()
