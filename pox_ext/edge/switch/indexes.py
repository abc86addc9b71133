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
import tempfile
from typing import Callable

from edge.switch.portnumbers import PortNumbers, Unnumbered

log = logging.getLogger("edge.indexes")

DEFAULT_FILE = os.path.join("~", ".local", "state", "edge.aggregator", "switches.json")


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

    Raises ValueError if the file exists but cannot be read as such an object.
    """

    def __init__(self, numbers: PortNumbers, path: str, parse_dpid: Callable[[str], int]) -> None:
        super().__init__(numbers)
        self._path = os.path.expanduser(path)
        self._parse_dpid = parse_dpid
        self._kept = self._read()
        self._complained = False

    def index(self, dpid: int) -> int:
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

    def _read(self) -> dict[int, int]:
        try:
            with open(self._path, encoding="utf-8") as file:
                content = json.load(file, object_pairs_hook=_Pairs)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as e:
            raise ValueError(f"cannot read the switches' indexes from {self._path}: {e}") from None
        if not isinstance(content, _Pairs):
            raise ValueError(f"{self._path} is not a JSON object from dpid to index")
        kept: dict[int, int] = {}
        for key, index in content:
            try:
                dpid = self._parse_dpid(key)
            except ValueError as e:
                raise ValueError(f"{self._path}: {e}") from None
            if type(index) is not int or index < 1:  # True is an int to isinstance()
                raise ValueError(
                    f"{self._path}: the index of switch {key}, {index!r}, is not a whole number "
                    "from 1"
                )
            if dpid in kept:
                raise ValueError(f"{self._path}: switch {key} is there twice")
            kept[dpid] = index
        if len(set(kept.values())) < len(kept):
            raise ValueError(f"{self._path} gives two switches the same index")
        return kept

    def _write(self) -> None:
        # Replaced as a whole: a crash leaves the old file or the new one.
        directory = os.path.dirname(self._path) or "."
        content = {f"{dpid:#018x}": index for dpid, index in self._kept.items()}
        try:
            os.makedirs(directory, exist_ok=True)
            with tempfile.NamedTemporaryFile(
                "w", dir=directory, prefix=".switches", delete=False, encoding="utf-8"
            ) as file:
                json.dump(content, file, indent=2)
                file.write("\n")
            os.replace(file.name, self._path)
            self._complained = False
        except OSError as e:
            if self._complained:
                return
            self._complained = True
            log.error(
                "Cannot keep the switches' indexes in %s (%s): after a restart they may have "
                "others; --switches_file names another place",
                self._path,
                e,
            )
