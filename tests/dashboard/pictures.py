"""Makes the pictures of docs/dashboard.md anew, in the directory that is named:

sudo .venv/bin/python tests/dashboard/pictures.py docs
"""

import contextlib
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "scripts")]

from lab import frames  # noqa: E402
from lab import openflow10 as of  # noqa: E402
from lab.bigswitch import BigSwitch  # noqa: E402

from dashboard.browser import FLOW_SHOWN, ROWS, Browser, show  # noqa: E402
from dashboard.site import Site  # noqa: E402


def populate(bed: BigSwitch) -> None:
    """Add flows as a learning controller and some policy would, and send frames that match them."""
    hosts = {number: frames.host_mac(number) for number in bed.numbers}
    for place, (number, address) in enumerate(hosts.items()):
        for other, out in list(zip(hosts.values(), hosts))[place + 1 : place + 4]:
            match = of.match(in_port=number, dl_src=address, dl_dst=other)
            bed.controller.flow_mod(
                match, [of.output(out)], priority=100, cookie=0x11, idle_timeout=300
            )
    web = of.match(dl_type=0x0800, nw_proto=6, nw_dst="10.0.0.3", tp_dst=80)
    bed.controller.flow_mod(web, [of.set_vlan_vid(20), of.output(18)], priority=500, cookie=0x2A)
    blocked = of.match(dl_type=0x0800, nw_src="192.0.2.0/24")
    bed.controller.flow_mod(blocked, [], priority=1000, cookie=0x2A)
    bed.controller.flow_mod(of.match(dl_type=0x0806), [of.output(of.Port.FLOOD)], priority=200)
    bed.controller.flow_mod(of.match(), [of.output(of.Port.CONTROLLER, 128)], priority=0)
    for number, count in zip(hosts, (40, 3, 17, 0, 250, 8)):
        others = [other for other in hosts if other > number]
        for step in range(count):
            target = others[step % min(3, len(others))]
            bed.wires.send(number, frames.ethernet(hosts[number], hosts[target], payload=bytes(46)))
        bed.wires.send(number, frames.arp())
        bed.wires.capture()
    for _ in range(12):
        bed.wires.send(1, frames.tcp(src="10.0.0.1", dst="10.0.0.3", dport=80))
        bed.wires.send(33, frames.tcp(src="10.0.0.9", dst="10.0.0.3", dport=80))
    bed.wires.capture()
    bed.controller.take()


def main(to: Path) -> None:
    """Take the pictures of a big switch over three switches, with some flows and traffic."""
    with contextlib.ExitStack() as stack:
        bed = BigSwitch(3, 4, options=["edge.dashboard"])
        stack.callback(bed.stop)
        populate(bed)
        site = Site(bed.network.outer)
        browser = stack.enter_context(contextlib.closing(Browser(bed.network.outer)))
        for name, size, scheme in (
            ("dashboard", (1200, 1000), "light"),
            ("dashboard-dark", (1200, 1000), "dark"),
            ("dashboard-phone", (390, 844), "light"),
        ):
            show(browser, site.url, size, scheme)
            browser.wait(f"{ROWS} > 10")
            browser.screenshot(to / f"{name}.png")
        show(browser, site.url, (1200, 800))
        browser.type("#search", "tp_dst=80,")
        browser.wait(f"{ROWS} === 1")
        browser.click("#flows .match a")
        browser.wait(f"{FLOW_SHOWN} && document.querySelectorAll('#flow-copies > li').length === 3")
        browser.screenshot(to / "dashboard-flow.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
