"""Parses the parameters in the address of a request."""

import re
from typing import NamedTuple
from urllib.parse import parse_qs

SORTS = ("priority", "packets", "octets", "duration")

_LONGEST_SEARCH = 200  # characters
_MOST_ROWS = 500
_MOST_PARAMETERS = 16


class Refused(Exception):
    """
    A request that is refused.

    status: the HTTP status of the answer; the exception's text is for the user
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Query(NamedTuple):
    """
    Which flows a request asks for.

    search: words, each of which a flow's text must contain (see search.Texts)
    sort: one of SORTS
    descending: the largest first
    offset, limit: how many of the found flows to skip, and how many to show after these
    """

    search: str
    sort: str
    descending: bool
    offset: int
    limit: int


def parse_query(text: str) -> Query:
    """Parse the query string of /api/flows.  Raises Refused if it is not valid."""
    try:
        fields = parse_qs(text, max_num_fields=_MOST_PARAMETERS)
    except ValueError:
        raise Refused(400, "There are too many parameters.") from None
    given = {name: values[-1] for name, values in fields.items()}

    def number(name: str, default: int, least: int, most: int) -> int:
        value = given.get(name, str(default))
        if not re.fullmatch("[0-9]{1,10}", value) or not least <= int(value) <= most:
            raise Refused(400, f"{name} is not a whole number from {least} to {most}.")
        return int(value)

    def choice(name: str, choices: tuple[str, ...]) -> str:
        value = given.get(name, choices[0])
        if value not in choices:
            raise Refused(400, f"{name} is none of {', '.join(choices)}.")
        return value

    search = given.get("search", "")
    if len(search) > _LONGEST_SEARCH:
        raise Refused(400, f"search is longer than {_LONGEST_SEARCH} characters.")
    return Query(
        search,
        choice("sort", SORTS),
        choice("order", ("desc", "asc")) == "desc",
        number("offset", 0, 0, 10**9),
        number("limit", 100, 1, _MOST_ROWS),
    )


def parse_cookie(text: str) -> int:
    """Parse the hexadecimal cookie of a flow on the switches.  Raises Refused if it is none."""
    if not re.fullmatch("(0x)?[0-9a-f]{1,16}", text):
        raise Refused(404, "There is no such flow: a flow is named by its switch_cookie.")
    return int(text, 16)
