"""The end of POX: a scenario that takes plain POX ten seconds, and repaired POX no time."""

import time

import pytest
from poxharness import run_pox

PROMPT = 8  # seconds; they include POX's start on a busy machine
WAIT = 10  # seconds that plain POX's main thread waits


@pytest.mark.parametrize("options, repaired", [([], False), (["--repaired"], True)])
def test_an_end_while_pox_goes_up_does_not_have_to_be_waited_for(options, repaired):
    started = time.monotonic()
    pox = run_pox(["openflow.of_01", "--port=0", "ends_at_once", *options])
    try:
        log, _ = pox.communicate(timeout=3 * WAIT)
    finally:
        pox.kill()
    took = time.monotonic() - started
    assert pox.returncode == 0 and "Down." in log, log
    assert took < PROMPT if repaired else took > WAIT - 0.5, took


def test_what_takes_a_second_at_the_end_is_not_cut_off():
    pox = run_pox(["openflow.of_01", "--port=0", "ends_at_once", "--repaired", "--takes=1.5"])
    try:
        log, _ = pox.communicate(timeout=3 * WAIT)
    finally:
        pox.kill()
    assert log.endswith("INFO:core:Down.\n")
