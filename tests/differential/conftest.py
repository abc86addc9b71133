"""The fixture of the differential suite."""

import pytest

from .both import Both


@pytest.fixture
def both(plain_switch, big_switch):
    """The plain bridge and the big switch, as new. They are told the same and must answer the
    same.
    """
    return Both(plain_switch, big_switch)
