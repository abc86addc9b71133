"""The fixture of the differential suite, and how long its property tests search."""

import pytest
from hypothesis import HealthCheck, settings

from .both import Both

# The same examples in every run: a failure is the change's, not the dice's.  To search for more:
# --hypothesis-profile=search
_SLOW = (HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large)
settings.register_profile(
    "repeat", derandomize=True, deadline=None, database=None, suppress_health_check=_SLOW
)
settings.register_profile(
    "search", derandomize=False, deadline=None, database=None, suppress_health_check=_SLOW
)
settings.load_profile("repeat")


@pytest.fixture
def both(plain_switch, big_switch):
    """The plain bridge and the big switch, as new, told the same and required to be the same."""
    return Both(plain_switch, big_switch)
