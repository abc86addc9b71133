"""
Which index a switch has: the number by which its ports are numbered (see ports.py).

By default it is the switch's dpid.  Where dpids are large, such as those made of a MAC address,
the user gives the indexes, or has them given out in the order in which the switches first
connect; then a small file keeps them, so that port numbers survive a restart.
"""

import json
import logging
import os
import re
import tempfile
from typing import Optional

from edge.switch.ports import PortNumbers, Unnumbered

log = logging.getLogger("edge.indexes")

DEFAULT_FILE = os.path.join("~", ".local", "state", "edge.aggregator", "switches.json")


class Indexes:
    """The index of every switch is its dpid."""

    def __init__(self, numbers: PortNumbers) -> None:
        self._numbers = numbers

    def index(self, dpid: int) -> int:
        """The switch's index.  Raises Unnumbered, with what to do, if it has none."""
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

    given: dpid -> index.  Raises ValueError if an index is given twice or cannot be.
    """

    def __init__(self, numbers: PortNumbers, given: "dict[int, int]") -> None:
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


class KeptIndexes(Indexes):
    """
    The lowest free index for each new switch; a file keeps them.

    path: of the file, which is made, with its directory, when the first switch connects.
    Raises ValueError if there is a file that is not of this kind.
    """

    def __init__(self, numbers: PortNumbers, path: str) -> None:
        super().__init__(numbers)
        self._path = os.path.expanduser(path)
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

    def _read(self) -> "dict[int, int]":
        try:
            with open(self._path, encoding="utf-8") as file:
                kept = {int(dpid, 16): int(index) for dpid, index in json.load(file).items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError, TypeError) as e:
            raise ValueError(f"cannot read the switches' indexes from {self._path}: {e}") from None
        if len(set(kept.values())) < len(kept) or any(index < 1 for index in kept.values()):
            raise ValueError(f"{self._path} gives two switches the same index, or one below 1")
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


def parse_given(text: str) -> Optional["dict[int, int]"]:
    """
    The indexes in DPID=INDEX,DPID=INDEX,...; None for "auto".

    A dpid is a number (decimal, or hexadecimal with 0x) or 16 hexadecimal digits or a MAC address,
    as Open vSwitch writes its datapath-id.  Raises ValueError with what is wrong.
    """
    if text == "auto":
        return None
    given: dict[int, int] = {}
    for item in text.split(","):
        left, equals, right = item.strip().partition("=")
        if not equals or not right.isdigit():
            raise ValueError(f"{item!r} is not DPID=INDEX")
        dpid = parse_dpid(left)
        if dpid in given:
            raise ValueError(f"{left} is there twice")
        given[dpid] = int(right)
    return given


def parse_dpid(text: str) -> int:
    """A datapath-id, 1 to 2**64-1.  Raises ValueError if it is none."""
    pairs = re.fullmatch(r"[0-9a-fA-F]{2}(?:([:-])[0-9a-fA-F]{2})(?:\1[0-9a-fA-F]{2}){4,6}", text)
    digits = text.replace(pairs[1], "") if pairs else text
    hexadecimal = pairs or re.fullmatch("[0-9a-fA-F]{16}", text)
    try:
        dpid = int(digits, 16 if hexadecimal else 0)
    except ValueError:
        raise ValueError(f"{text!r} is not a datapath-id") from None
    if not 1 <= dpid < 1 << 64:
        raise ValueError(f"{text!r} is not a datapath-id: it is not 1 to 2**64-1")
    return dpid
