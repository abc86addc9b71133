"""stdout and stderr while nobody reads them."""

import contextlib
import logging
import os
import pty
import re
import socket
import termios
import tty

import pytest

from edge.poxfixes import output
from edge.poxfixes.output import Output

LINE = "x" * 99 + "\n"


class Far:
    """The reader's end of a pipe, a socket or a terminal, of which `stream` is the writer's."""

    def __init__(self, kind):
        self.kind = kind
        if kind == "pipe":
            self.far, near = os.pipe()
        elif kind == "socket":
            one, other = socket.socketpair()
            self.far, near = one.detach(), other.detach()
        else:
            self.far, near = pty.openpty()
            tty.setraw(near)
        os.set_blocking(self.far, False)
        self.stream = os.fdopen(near, "w", encoding="utf-8")

    def pause(self):
        """Read nothing any more; at a terminal somebody has typed Ctrl-S."""
        if self.kind == "terminal":
            termios.tcflow(self.far, termios.TCOOFF)

    def go_on(self):
        if self.kind == "terminal":
            termios.tcflow(self.far, termios.TCOON)

    def read(self):
        data = b""
        with contextlib.suppress(BlockingIOError):
            while True:
                data += os.read(self.far, 1 << 20)
        return data.decode()

    def read_all(self, out):
        """Read until nothing waits."""
        said = self.read()
        while not out.drain():
            said += self.read()
        return said + self.read()

    def close(self):
        with contextlib.suppress(OSError):
            os.close(self.far)
        self.stream.close()


@pytest.fixture(params=["pipe", "socket", "terminal"])
def far(request):
    far = Far(request.param)
    yield far
    far.close()


@pytest.fixture(params=[False, True], ids=["opened again", "not to be opened again"])
def out(far, request, monkeypatch):
    if request.param:

        def refuse(*arguments):
            raise PermissionError

        monkeypatch.setattr(output.os, "open", refuse)
    return Output(far.stream, most=100_000)


def test_what_is_read_is_written_at_once_and_unchanged(far, out):
    for text in ("a line\n", "ä €\udc80\n", "", "no end", "\n"):
        assert out.write(text) == len(text)
        assert far.read() == text.replace("\udc80", "\\udc80")
    print("printed", file=out)
    assert far.read() == "printed\n"
    assert out.fileno() == far.stream.fileno() and out.isatty() == far.stream.isatty()
    assert os.get_blocking(out.fileno()), "other processes share the flags"


def test_nothing_stands_still_and_what_is_dropped_is_counted(far, out):
    """Each gap has a line that says how long it is.

    There is one gap, but at a terminal: the kernel may make room there when it finds the time.
    """
    far.pause()
    for number in range(10_000):
        out.write(f"{number:99}\n")
    far.go_on()
    due = notices = since = 0
    for line in far.read_all(out).splitlines():
        notice = re.fullmatch(
            r"WARNING:edge\.pox:(\d+) lines of the log are missing here: its reader did not read",
            line,
        )
        if notice:
            due += int(notice[1])
            notices += 1
            since = 0
        else:
            assert int(line) == due
            due += 1
            since += 1
    assert due == 10_000 and since >= 1000
    assert notices == 1 or (far.kind == "terminal" and notices)
    out.write("again\n")
    assert far.read() == "again\n"


def test_what_waits_is_written_before_what_comes(far, out):
    far.pause()
    written = [f"{number:999}\n" for number in range(90)]
    for line in written:
        out.write(line)
    far.go_on()
    said = ""
    for line in ("one\n", "two\n"):
        said += far.read_all(out)
        out.write(line)
    said += far.read_all(out)
    assert said == "".join(written) + "one\ntwo\n"


def test_the_line_that_counts_them_is_a_line_of_its_own(far, out):
    far.pause()
    for number in range(10_000):
        out.write("x" * (80 + number % 7))
        out.write("\n")
    far.go_on()
    assert re.search(r"^WARNING:edge\.pox:\d+ lines [\w ,:]+$", far.read_all(out), re.M)


@pytest.mark.parametrize("far", ["pipe", "socket"], indirect=True)
@pytest.mark.parametrize("before", [0, 3000])
def test_a_reader_that_is_gone_costs_nothing(far, out, before):
    for _ in range(before):
        out.write(LINE)
    os.close(far.far)
    for _ in range(3000):
        out.write(LINE)
    assert out.drain() and not out._size and out._missing >= 3000


@pytest.mark.parametrize("out", [False], indirect=True)
def test_the_end_waits_for_a_reader_that_reads_and_for_no_other(far, out, monkeypatch):
    monkeypatch.setattr(output, "LAST_WAIT", 0.01)
    far.pause()
    for _ in range(5000):
        out.write(LINE)
    out.finish()
    assert out._waiting, "nobody has read"
    far.go_on()
    far.read()
    out.finish()
    assert far.read()


def test_only_what_may_stand_still_is_replaced(tmp_path, far):
    with open(tmp_path / "log", "w") as file, open("/dev/null", "w") as null:
        assert not any(map(output._may_block, (file, null, None, object())))
    assert not output._may_block(file), "it is closed"
    assert output._may_block(far.stream)


def test_each_stream_is_replaced_once_in_all_handlers(far, tmp_path, monkeypatch):
    outputs = output.Outputs()
    handlers = [logging.StreamHandler(far.stream), logging.StreamHandler(far.stream)]
    to_file = logging.FileHandler(tmp_path / "log")
    logger = logging.getLogger("edge.test.output")
    logger.propagate = False
    try:
        for handler in (*handlers, to_file):
            logger.addHandler(handler)
        stream = to_file.stream
        for _ in range(2):
            outputs._replace_in_handlers()
        assert isinstance(handlers[0].stream, Output)
        assert handlers[0].stream is handlers[1].stream
        assert to_file.stream is stream
        logger.warning("said")
        assert far.read() == "said\n" * 2
    finally:
        for handler in (*handlers, to_file):
            logger.removeHandler(handler)
        to_file.close()
