"""What POX prints, while nobody reads it."""

import os
import re
import signal
import time

import pytest
from poxharness import NEVER, SOON, run_pox

CHAT = ["openflow.of_01", "--port=0", "--address=127.0.0.1", "chatters"]


def comes(path, patience):
    """Whether a file is made in time."""
    deadline = time.monotonic() + patience
    while not os.path.exists(path):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.mark.parametrize("repaired", [False, True])
@pytest.mark.parametrize("log", [[], ["log", "--stdout", "--no-default"]], ids=["stderr", "stdout"])
def test_pox_goes_on_while_nobody_reads_its_log(tmp_path, repaired, log):
    """When the log is read again, it is whole, but for lines in the middle, which are counted."""
    done = str(tmp_path / "done")
    options = ["--repaired"] * repaired
    pox = run_pox([*CHAT, f"--done={done}", *options, *log])
    try:
        assert comes(done, SOON if repaired else NEVER) == repaired
        if not repaired:
            return
        pox.send_signal(signal.SIGTERM)
        said = pox.communicate(timeout=SOON)[0]
    finally:
        pox.kill()
        pox.communicate()
    assert pox.returncode == 0
    before, missing, after = re.split(
        r"^WARNING:edge\.pox:(\d+) lines .*\n", said, flags=re.MULTILINE
    )
    first, last = (
        [int(number) for number in re.findall(r"^INFO:chat:line (\d+) x{80}$", part, re.M)]
        for part in (before, after)
    )
    assert first == list(range(len(first)))
    assert last == list(range(20_000 - len(last), 20_000))
    assert len(first) + int(missing) + len(last) == 20_000
    assert said.endswith("INFO:core:Down.\n")


def test_the_end_of_the_reader_is_not_the_end_of_pox(tmp_path):
    done = str(tmp_path / "done")
    pox = run_pox([*CHAT, f"--done={done}", "--repaired"])
    try:
        pox.stdout.close()
        assert comes(done, SOON)
        pox.send_signal(signal.SIGTERM)
        assert pox.wait(SOON) == 0
    finally:
        pox.kill()
        pox.wait()


def test_the_end_does_not_wait_for_a_reader_that_does_not_read(tmp_path):
    done = str(tmp_path / "done")
    pox = run_pox([*CHAT, f"--done={done}", "--repaired"])
    try:
        assert comes(done, SOON)
        pox.send_signal(signal.SIGTERM)
        assert pox.wait(SOON) == 0
    finally:
        pox.kill()
        pox.communicate()
