"""The file of --switches_file: what is kept in it, and what happens if it cannot be."""

import errno
import json
import os
import stat
import subprocess
import sys

import pytest

from edge import options
from edge.options import BadOption, parse_dpid
from edge.switch import indexes, keptfile
from edge.switch.indexes import KeptIndexes
from edge.switch.portnumbers import PortNumbers, Unnumbered

GOOD = '{\n  "0x0000000000000005": 1,\n  "0x0000000000000007": 2\n}\n'


@pytest.fixture
def path(tmp_path):
    return tmp_path / "switches.json"


def kept(path):
    return KeptIndexes(PortNumbers(), str(path), parse_dpid)


def rests(path):
    """Return what is beside the file, without what belongs there."""
    return {each.name for each in path.parent.iterdir()} - {
        path.name + suffix for suffix in ("", ".copy", ".lock")
    }


def messages(caplog):
    return [(record.levelname, record.getMessage()) for record in caplog.records]


# ---- the file and its copy ----


def test_what_is_written_is_there_twice_and_nothing_else(path):
    switches = kept(path)
    assert [switches.index(dpid) for dpid in (5, 7)] == [1, 2]
    assert path.read_text() == (path.parent / "switches.json.copy").read_text() == GOOD
    assert rests(path) == set()


def test_it_is_on_the_disk_before_it_counts(path, monkeypatch):
    """Data before the new name, the new name before anything else."""
    did = []

    def watched(name):
        real = getattr(os, name)

        def call(*args, **kwargs):
            what = args[-1] if name == "replace" else os.readlink(f"/proc/self/fd/{args[0]}")
            did.append((name, os.path.relpath(what, path.parent)))
            return real(*args, **kwargs)

        monkeypatch.setattr(keptfile.os, name, call)

    switches = kept(path)
    watched("fsync")
    watched("replace")
    switches.index(5)
    assert did == [
        ("fsync", "switches.json.new"),
        ("replace", "switches.json"),
        ("fsync", "."),
        ("fsync", "switches.json.new"),
        ("replace", "switches.json.copy"),
        ("fsync", "."),
    ]


CUT = [GOOD[:length] for length in (0, 1, 5, 20, 40, len(GOOD) - 2)]


@pytest.mark.parametrize("content", [*CUT, "\n", GOOD[:30] + "\0" * 30, "\0" * 50])
def test_an_empty_or_half_written_file_is_replaced_by_its_copy(path, caplog, content):
    switches = kept(path)
    for dpid in (5, 7):
        switches.index(dpid)
    path.write_text(content)
    again = kept(path)
    assert [again.index(dpid) for dpid in (7, 5, 9)] == [2, 1, 3]
    (warning,) = [text for level, text in messages(caplog) if level == "WARNING"]
    assert str(path) in warning and "half-written" in warning
    assert len(json.loads(path.read_text())) == 3


@pytest.mark.parametrize("content", CUT[:3])
@pytest.mark.parametrize("copy", [None, *CUT[:2]])
def test_without_a_good_copy_it_is_refused(path, content, copy):
    path.write_text(content)
    if copy is not None:
        (path.parent / "switches.json.copy").write_text(copy)
    with pytest.raises(ValueError, match="no good copy"):
        kept(path)
    assert path.read_text() == content, "for whoever wants to repair it"


def test_what_a_user_has_written_wrongly_is_not_replaced(path):
    """It is not half-written: the user would lose the change."""
    kept(path).index(5)
    path.write_text('{"0x5": 1, "0x7": two}')
    with pytest.raises(ValueError, match="switches.json"):
        kept(path)


def test_what_is_no_regular_file_is_refused_at_once(path):
    """Nothing is ever read from this pipe, and without end from this device."""
    os.mkfifo(path)
    for each in (path, "/dev/zero"):
        with pytest.raises(ValueError, match="not a regular file"):
            kept(each)


def test_what_a_user_has_changed_is_in_the_copy_too(path):
    kept(path).index(5)
    path.write_text('{"0x5": 9}')
    kept(path)
    assert path.read_text() == '{"0x5": 9}', "as the user has written it"
    path.write_text("")
    assert kept(path).index(5) == 9


def test_mode_and_symbolic_link_are_kept(path, tmp_path):
    real = tmp_path / "elsewhere" / "real.json"
    real.parent.mkdir()
    real.write_text('{"0x5": 1}')
    real.chmod(0o640)
    path.symlink_to(real)
    kept(path).index(7)
    assert path.is_symlink() and len(json.loads(real.read_text())) == 2
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert {each.name for each in real.parent.iterdir()} == {
        "real.json",
        "real.json.copy",
        "real.json.lock",
    }


# ---- no space ----


def test_it_is_written_as_soon_as_there_is_space(path, caplog, monkeypatch):
    """A file-size limit stands for the full disk: of each file, a part can be written."""
    caplog.set_level("INFO")
    full = [True]
    write = os.fsync

    def no_space(file):
        if full[0] and os.readlink(f"/proc/self/fd/{file}").endswith(".new"):
            raise OSError(errno.ENOSPC, "No space left on device")
        write(file)

    monkeypatch.setattr(keptfile.os, "fsync", no_space)
    clock = [1000.0]
    monkeypatch.setattr(indexes.time, "monotonic", lambda: clock[0])
    switches = kept(path)
    assert [switches.index(dpid) for dpid in (5, 7)] == [1, 2]
    for _ in range(30):
        clock[0] += 0.1
        switches.tick(clock[0])
    assert not path.exists() and rests(path) == set()
    assert [level for level, _ in messages(caplog)] == ["ERROR", "INFO", "INFO"]
    assert "No space left on device" in messages(caplog)[0][1]
    full[0] = False
    caplog.clear()
    for _ in range(30):
        clock[0] += 0.1
        switches.tick(clock[0])
    assert path.read_text() == GOOD and rests(path) == set()
    ((level, text),) = messages(caplog)
    assert level == "INFO" and "again" in text


def test_nothing_is_written_as_long_as_there_is_nothing_to_keep(tmp_path, caplog, monkeypatch):
    """Not even when a directory that cannot be used can be used at last."""
    caplog.set_level("INFO")
    path = tmp_path / "switches.json"
    (tmp_path / "switches.json.lock").mkdir()
    switches = kept(path)
    (tmp_path / "switches.json.lock").rmdir()
    monkeypatch.setattr(indexes.time, "monotonic", lambda: 0.0)
    switches.tick(float("inf"))
    assert [level for level, _ in messages(caplog)] == ["ERROR", "INFO"]
    assert not path.exists()


# ---- one aggregator for each file ----

KEEPER = """
import sys
import pox.core
pox.core.initialize(handle_signals=False)
from edge import options
from edge.switch.portnumbers import PortNumbers
try:
    options.indexes(PortNumbers(), "auto", sys.argv[1])
except options.BadOption as e:
    print(e, flush=True)
else:
    print("kept", flush=True)
    sys.stdin.read()
"""


def keeper(path, **more):
    return subprocess.Popen(
        [sys.executable, "-c", KEEPER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path), **more},
    )


def test_a_second_one_is_refused_until_the_first_is_gone_however_it_goes(path, tmp_path):
    link = tmp_path / "link.json"
    link.symlink_to(path)
    with keeper(path) as first:
        assert first.stdout.readline() == "kept\n"
        (tmp_path / "switches.json.new").write_text("it was killed while it wrote")
        with pytest.raises(BadOption) as refused:
            options.indexes(PortNumbers(), "auto", str(link))
        assert str(refused.value) == (
            f"--switches: {link} is in use by another aggregator (process {first.pid}); give each "
            "one a --switches_file of its own"
        )
        first.kill()
        first.wait()
    switches = options.indexes(PortNumbers(), "auto", str(link))
    assert rests(path) == {"link.json"}
    switches.index(5)
    assert "0x0000000000000005" in path.read_text()


def test_of_two_that_find_no_directory_the_second_numbers_nothing(tmp_path):
    """There is nothing to lock before the first switch."""
    path = tmp_path / "new" / "switches.json"
    switches = kept(path)
    assert not path.parent.exists()
    path.parent.mkdir()
    with keeper(path) as first:
        assert first.stdout.readline() == "kept\n"
        for _ in range(2):
            with pytest.raises(Unnumbered, match=r"in use by another aggregator \(process"):
                switches.index(5)
        first.kill()
        first.wait()
    path.write_text('{"0x7": 1}')
    assert switches.index(5) == 2, "the other one has numbered a switch"


# ---- the home directory ----


@pytest.mark.parametrize("home", [None, "", "relative"])
def test_without_home_the_default_file_is_refused(monkeypatch, tmp_path, home):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HOME", raising=False)
    if home is not None:
        monkeypatch.setenv("HOME", home)
    with pytest.raises(BadOption, match="HOME is not set"):
        options.indexes(PortNumbers(), "auto", indexes.DEFAULT_FILE)
    assert list(tmp_path.iterdir()) == []
    # Without --switches=auto there is no file.
    options.indexes(PortNumbers(), None, indexes.DEFAULT_FILE)
    options.indexes(PortNumbers(), "5=1", indexes.DEFAULT_FILE)


def test_with_home_the_default_file_is_below_it(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    options.indexes(PortNumbers(), "auto", indexes.DEFAULT_FILE).index(5)
    assert (tmp_path / ".local/state/edge.aggregator/switches.json").exists()


def test_the_home_of_nobody_is_refused(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadOption, match="no such user"):
        options.indexes(PortNumbers(), "auto", "~nobody.of.this.name/switches.json")
    assert list(tmp_path.iterdir()) == []
