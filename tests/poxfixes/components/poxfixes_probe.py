"""A POX component that repairs POX."""

from edge import poxfixes

poxfixes.repair_help()


def launch(option: str = "") -> None:
    """
    option: what the option is for.
    """
    poxfixes.install()
