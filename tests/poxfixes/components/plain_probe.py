"""A POX component that does not repair POX."""


def launch(option: str = "") -> None:
    """
    option: what the option is for.
    """
