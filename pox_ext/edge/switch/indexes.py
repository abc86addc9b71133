"""
The indexes of the switches.

The numbers of a switch's ports on the big switch are computed from the switch's index (see
portnumbers.py).  By default the index is the switch's dpid.  Some dpids are too large for that,
such as those made of a MAC address.  Then there are two ways.  Either the user gives each switch
an index (GivenIndexes), or each new switch gets the lowest free index, and a file keeps it over
restarts (KeptIndexes).
"""

import json
import logging
import os
import time
from typing import Callable, Optional

from edge.switch.keptfile import InUse, KeptFile
from edge.switch.portnumbers import PortNumbers, Unnumbered

log = logging.getLogger("edge.indexes")

DEFAULT_FILE = os.path.join("~", ".local", "state", "edge.aggregator", "switches.json")
_PAUSE = 1.0  # seconds between attempts to write the file


class Indexes:
    """The index of every switch is its dpid."""

    def __init__(self, numbers: PortNumbers) -> None:
        self._numbers = numbers

    def index(self, dpid: int) -> int:
        """The switch's index.  Raises Unnumbered, whose text says what to do, if it has none."""
        try:
            self._numbers.check_index(dpid)
        except Unnumbered as e:
            raise Unnumbered(
                f"{e}; give it a smaller datapath-id, or start with --switches=auto"
            ) from None
        return dpid

    def tick(self, now: float) -> None:
        """Do the periodic work, if there is any.  To be called some ten times a second."""


class GivenIndexes(Indexes):
    """
    The indexes that the user gave.

    given: dpid -> index

    Raises ValueError if an index is given twice or is out of range.
    """

    def __init__(self, numbers: PortNumbers, given: dict[int, int]) -> None:
        super().__init__(numbers)
        for dpid, index in given.items():
            try:
                numbers.check_index(index)
            except Unnumbered as e:
                raise ValueError(f"the index {index} of switch {dpid:#x}: {e}") from None
        if len(set(given.values())) < len(given):
            raise ValueError("two switches have the same index")
        self._given = given

    def index(self, dpid: int) -> int:
        if dpid not in self._given:
            raise Unnumbered("--switches does not name it; add it there")
        return self._given[dpid]


class _Pairs(list[tuple[str, object]]):
    """A JSON object as a list of its (key, value) pairs, so that doubled keys are not lost."""


class KeptIndexes(Indexes):
    """
    Each new switch gets the lowest free index; a file keeps the indexes over restarts.

    path: the path of the file, which holds a JSON object from dpid to index.  The file and its
        directory are made when the first switch connects.
    parse_dpid: parses a key of the file; raises ValueError if the key is no dpid

    Raises ValueError if the file exists but cannot be read as such an object, or if another
    aggregator keeps it.
    """

    def __init__(self, numbers: PortNumbers, path: str, parse_dpid: Callable[[str], int]) -> None:
        super().__init__(numbers)
        self._path = path
        self._file = KeptFile(path)
        self._parse_dpid = parse_dpid
        self._try_again_at: Optional[float] = None  # while the indexes cannot be written
        self._kept = self._read()
        if self._file.has_directory:
            self._begin()

    def index(self, dpid: int) -> int:
        if not self._file.locked:
            self._lock_late()
        index = self._kept.get(dpid)
        if index is None:
            used = set(self._kept.values())
            index = next(i for i in range(1, len(used) + 2) if i not in used)
            try:
                self._numbers.check_index(index)
            except Unnumbered:
                raise Unnumbered(
                    f"all {self._numbers.last_index} indexes are taken; remove switches that are "
                    f"gone from {self._path}, or start with a smaller --max_ports"
                ) from None
            self._kept[dpid] = index
            self._write()
            log.info("The switch with dpid %#x has index %d from now on", dpid, index)
        try:
            self._numbers.check_index(index)
        except Unnumbered as e:
            raise Unnumbered(
                f"{e}; give it a smaller index in {self._path}, or start with a smaller --max_ports"
            ) from None
        return index

    def tick(self, now: float) -> None:
        if self._try_again_at is None or now < self._try_again_at:
            return
        try:
            if not self._file.locked:
                self._lock_late()
        except Unnumbered as e:
            self._failed(e)
            return
        if self._kept:
            self._write()
        elif self._file.locked:
            self._succeeded()

    def _lock_late(self) -> None:
        """Lock the file.  At the start that was not possible, perhaps for want of a directory."""
        try:
            self._file.lock()
            if not self._kept:
                self._kept = self._read()
        except OSError as e:
            self._failed(e)
        except ValueError as e:  # InUse, or it is not a file of indexes
            raise Unnumbered(str(e)) from None

    # --- reading -------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Lock the file, and read it once more: now nobody else writes it."""
        try:
            self._file.lock()
            self._kept = self._read()
            content = self._file.read()
            if content is not None and _is_cut_off(content):
                log.warning(
                    "%s is empty or half-written: the indexes are those of %s, and are written "
                    "to it again",
                    self._path,
                    self._file.copy_path,
                )
                self._write()
            elif content is not None and content != self._file.read_copy():
                self._file.write_copy(content)
        except OSError as e:
            self._failed(e)

    def _read(self) -> dict[int, int]:
        try:
            content = self._file.read()
        except OSError as e:
            raise ValueError(
                f"cannot read the switches' indexes from {self._path}: {e.strerror}"
            ) from None
        if content is None:
            return {}
        if _is_cut_off(content):
            copy = self._file.read_copy()
            if copy is None or _is_cut_off(copy):
                raise ValueError(
                    f"{self._path} is empty or half-written, and there is no good copy of it "
                    f"({self._file.copy_path}); put a backup there, or delete it to have the "
                    "switches numbered anew"
                )
            return self._parse(copy, self._file.copy_path)
        return self._parse(content, self._path)

    def _parse(self, content: bytes, path: str) -> dict[int, int]:
        try:
            pairs = json.loads(content.decode(), object_pairs_hook=_Pairs)
        except ValueError as e:
            raise ValueError(f"cannot read the switches' indexes from {path}: {e}") from None
        if not isinstance(pairs, _Pairs):
            raise ValueError(f"{path} is not a JSON object from dpid to index")
        kept: dict[int, int] = {}
        for key, index in pairs:
            try:
                dpid = self._parse_dpid(key)
            except ValueError as e:
                raise ValueError(f"{path}: {e}") from None
            if type(index) is not int or index < 1:  # True is an int to isinstance()
                raise ValueError(
                    f"{path}: the index of switch {key}, {index!r}, is not a whole number from 1"
                )
            if dpid in kept:
                raise ValueError(f"{path}: switch {key} is there twice")
            kept[dpid] = index
        if len(set(kept.values())) < len(kept):
            raise ValueError(f"{path} gives two switches the same index")
        return kept

    # --- writing -------------------------------------------------------------------------------

    def _write(self) -> None:
        content = {f"{dpid:#018x}": index for dpid, index in self._kept.items()}
        try:
            self._file.write(json.dumps(content, indent=2).encode() + b"\n")
        except (OSError, InUse) as e:
            self._failed(e)
        else:
            self._succeeded()

    def _succeeded(self) -> None:
        if self._try_again_at is not None:
            self._try_again_at = None
            log.info("The switches' indexes are kept in %s again", self._path)

    def _failed(self, error: Exception) -> None:
        if self._try_again_at is None:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            log.error(
                "Cannot keep the switches' indexes in %s (%s): it is tried again every second; "
                "until then they may be others after a restart; --switches_file names another "
                "place",
                self._path,
                reason,
            )
        self._try_again_at = time.monotonic() + _PAUSE


def _is_cut_off(content: bytes) -> bool:
    """
    True if this is the beginning of a JSON object, or nothing.

    After a crash of the machine, a file may also end in zeros in place of what was written last.
    """
    content = content.strip(b"\0 \t\r\n")
    return not content or (content.startswith(b"{") and not content.endswith(b"}"))
