"""With ten thousand flows and many readers, the big switch answers as quickly as without."""

import threading
import time

from lab import openflow10 as of

from .site import Site

FLOWS = 10000
CLIENTS = 4
ECHOES = 400
LONGEST = 0.1
"""Seconds that nine of ten echoes may take. A reading that is not cut into slices would take
longer.
"""


def echo_times(controller):
    """Return how long echoes through the aggregator's scheduler take, in seconds, sorted."""
    times = []
    for _ in range(ECHOES):
        begun = time.monotonic()
        controller.request(of.message(of.Type.ECHO_REQUEST))
        times.append(time.monotonic() - begun)
        time.sleep(0.002)  # spread the echoes over all that the readers do
    return sorted(times)


def test_readers_do_not_hold_up_the_controller(make_big_switch):
    # Measuring coverage would itself slow the aggregator down.
    bed = make_big_switch(options=["edge.dashboard"], level="INFO", measured=False)
    bed.controller.send(
        *(
            of.flow_mod(
                of.match(dl_type=0x0800, nw_dst=f"10.1.{number >> 8}.{number & 255}"),
                [of.output(bed.numbers[number % 4])],
            )
            for number in range(FLOWS)
        )
    )
    bed.controller.barrier(60)
    site = Site(bed.network.outer)
    enough = threading.Event()
    answers = []

    def read(client):
        step = 0
        while not enough.is_set():
            # Every question is a new one, so that no two readers share an answer.
            step += 1
            search = f"10.1. output:1{'' if step % 2 else '7'},"
            parameters = {"search": search, "sort": "packets", "offset": client * 500 + step}
            answers.append(site.get("flows", **parameters)["found"])

    readers = [threading.Thread(target=read, args=(client,)) for client in range(CLIENTS)]
    for reader in readers:
        reader.start()
    try:
        times = echo_times(bed.controller)
        bed.controller.flow_mod(of.match(in_port=1), [of.output(2)])
    finally:
        enough.set()
        for reader in readers:
            reader.join()
    assert len(answers) > CLIENTS
    assert set(answers) == {FLOWS // 4}
    assert times[len(times) * 9 // 10] < LONGEST
