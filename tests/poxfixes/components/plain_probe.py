"""A POX component that leaves POX as it is."""


def launch(option: str = "") -> None:
    """
    option: what the option is for.
    """
