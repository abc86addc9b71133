"""The states of a switch's liveness. The test gives the time."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.south.session import Liveness, State, Verdict

TIMEOUT = 6.0


@pytest.fixture
def liveness():
    return Liveness()


def up(now=100.0):
    """Return the liveness of a switch that is up and has answered at this time."""
    liveness = Liveness()
    liveness.connected()
    liveness.asked(now)
    liveness.answered(now)
    liveness.flows_read()
    liveness.compared(now)
    liveness.synced()
    return liveness


def watch(liveness, now, owes=True, stuck=0, awake_since=-math.inf):
    return liveness.watch(now, awake_since, TIMEOUT, owes, stuck)


def watch_silent(liveness, now, stuck=0, unacknowledged=0, awake_since=-math.inf):
    return liveness.watch_silent(now, awake_since, stuck, unacknowledged)


def test_a_switch_goes_through_its_states_until_it_is_up(liveness):
    states = [(liveness.state, liveness.ready)]
    for step in (liveness.connected, liveness.flows_read, liveness.synced):
        step()
        states.append((liveness.state, liveness.ready))
    assert states == [
        (State.GONE, False),
        (State.CONNECTING, False),
        (State.SYNCING, True),
        (State.UP, True),
    ]


@pytest.mark.parametrize("steps", range(4))
def test_a_switch_that_is_lost_is_gone_and_was_last_ready_then_if_it_was(liveness, steps):
    for step in (liveness.connected, liveness.flows_read, liveness.synced)[:steps]:
        step()
    was_ready = liveness.ready
    liveness.lost(50.0)
    assert (liveness.state, liveness.ready) == (State.GONE, False)
    assert liveness.lost_at == (50.0 if was_ready else -math.inf)


def test_a_switch_that_answers_is_asked_when_it_has_been_quiet_for_a_third_of_the_time():
    liveness = up()
    assert watch(liveness, 101.9, owes=False) is Verdict.FINE
    assert watch(liveness, 102.0, owes=False) is Verdict.ASK


def test_a_switch_is_given_up_when_it_owes_an_answer_for_the_whole_time():
    liveness = up()
    assert watch(liveness, 105.9) is Verdict.FINE
    assert watch(liveness, 106.0) is Verdict.FALL_SILENT
    assert liveness.silence(106.0) == 6.0


def test_nobody_is_given_up_who_was_not_asked():
    """It does not matter how long the switch has been silent."""
    assert watch(up(), 1000.0, owes=False) is Verdict.ASK


def test_a_switch_that_does_not_take_what_is_sent_is_closed_when_its_time_is_up():
    liveness = up()
    assert watch(liveness, 105.0, stuck=100) is Verdict.FINE
    assert watch(liveness, 106.0, stuck=100) is Verdict.CLOSE


def test_that_a_switch_reads_what_waits_for_it_counts_as_an_answer():
    liveness = up()
    watch(liveness, 105.0, stuck=100)
    assert watch(liveness, 106.0, stuck=60) is Verdict.FINE
    assert watch(liveness, 111.9, stuck=60) is Verdict.FINE
    assert watch(liveness, 112.0, stuck=60) is Verdict.CLOSE


@given(st.lists(st.floats(0, 5.9), max_size=20))
def test_a_switch_that_answers_in_time_is_never_given_up(pauses):
    liveness, now = up(), 100.0
    for pause in pauses:
        assert watch(liveness, now + pause) is Verdict.FINE
        now += pause
        liveness.answered(now)


def test_a_switch_has_stood_still_if_it_is_late_and_owes_an_answer():
    liveness = up()
    liveness.heard(100.6, owes=False)
    assert liveness.stalled_at == -math.inf
    liveness.heard(101.1, owes=True)
    assert liveness.stalled_at == -math.inf
    liveness.heard(101.7, owes=True)
    assert liveness.stalled_at == 101.7


# ---- a pause of the aggregator, until 200.0 ----


@pytest.mark.parametrize("stuck", [0, 100])
def test_a_switch_that_owed_an_answer_has_its_time_after_a_pause(stuck):
    liveness = up()
    watch(liveness, 105.0, stuck=stuck)
    for now in (200.0, 205.9):
        assert watch(liveness, now, stuck=stuck, awake_since=200.0) is Verdict.FINE
    given_up = watch(liveness, 206.0, stuck=stuck, awake_since=200.0)
    assert given_up is (Verdict.CLOSE if stuck else Verdict.FALL_SILENT)


def test_a_switch_that_owed_nothing_is_asked_at_once_after_a_pause():
    assert watch(up(), 200.0, owes=False, awake_since=200.0) is Verdict.ASK


def test_a_pause_before_the_last_answer_changes_nothing():
    liveness = up(204.0)
    assert watch(liveness, 209.9, awake_since=200.0) is Verdict.FINE
    assert watch(liveness, 210.0, awake_since=200.0) is Verdict.FALL_SILENT


def test_a_silent_switch_has_its_time_after_a_pause():
    assert watch_silent(silent(), 259.9, 0, 8, awake_since=200.0)[0] is Verdict.FINE
    assert watch_silent(silent(), 260.0, 0, 8, awake_since=200.0)[0] is Verdict.CLOSE


def test_a_cable_mended_in_a_pause_leaves_the_switch_time_to_answer():
    liveness = silent()
    watch_silent(liveness, 103.0, 0, 8)
    for now in (200.0, 200.2):
        assert watch_silent(liveness, now, awake_since=200.0)[0] is not Verdict.CLOSE
    assert watch_silent(liveness, 200.3, awake_since=200.0)[0] is Verdict.CLOSE


# ---- a silent switch ----


def silent(now=100.0):
    liveness = up()
    liveness.fell_silent(now)
    assert (liveness.state, liveness.ready) == (State.SILENT, False)
    assert liveness.lost_at == now
    return liveness


def test_a_silent_switch_is_asked_once_a_second():
    liveness = silent()
    asked = [
        tick / 10
        for tick in range(1, 41)
        if watch_silent(liveness, 100 + tick / 10, 0, 0)[0] is Verdict.ASK
    ]
    assert asked == [1.0, 2.0, 3.0, 4.0]


def test_a_silent_switch_is_closed_after_a_minute_or_when_it_takes_nothing():
    assert watch_silent(silent(), 159.9, 0, 8)[0] is Verdict.FINE
    assert watch_silent(silent(), 160.0, 0, 8) == (Verdict.CLOSE, "silent for too long")
    assert watch_silent(silent(), 101.0, 1, 0) == (Verdict.CLOSE, "silent for too long")


def test_a_silent_switch_whose_cable_was_mended_and_that_does_not_answer_is_closed():
    liveness = silent()
    assert watch_silent(liveness, 103.0, 0, 8)[0] is Verdict.FINE
    assert watch_silent(liveness, 103.2, 0, 0)[0] is not Verdict.CLOSE
    verdict, reason = watch_silent(liveness, 103.3, 0, 0)
    assert verdict is Verdict.CLOSE and "cut" in reason


def test_a_silent_switch_that_answers_connects_again():
    liveness = silent()
    liveness.connected()
    assert liveness.state is State.CONNECTING
