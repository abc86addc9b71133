"""The one exception whose text is meant for the user."""


class Failure(RuntimeError):
    """Something did not work; the text tells the user in one line what and why.

    A program prints the text after its own name and exits with status 1.
    """
