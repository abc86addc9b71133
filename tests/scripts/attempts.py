"""When a switch tries to connect to a controller that does not want it."""

import time


def expect_an_attempt_every_second(listener, switches=1):
    """Turn each switch away several times; fail unless they come again about a second later.

    With Open vSwitch's defaults they would come after 1, 2, 4 and 8 seconds.
    """
    listener.settimeout(20)
    attempts = []
    for _attempt in range(4 * switches):
        listener.accept()[0].close()
        attempts.append(time.monotonic())
    for earlier, later in zip(attempts, attempts[switches:]):
        assert later - earlier < 2.5
