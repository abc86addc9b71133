"""Messages that the controllers of a bed get."""

from lab import openflow10 as of
from lab.bigswitch import Bed
from lab.controller import Connection, Controller
from lab.openflow10 import Type


def each_of(bed: Bed) -> list[Controller]:
    """Return all controllers of a bed."""
    return [bed.controller, *bed.others]


def kinds(connection: Connection) -> list[str]:
    """Take the messages on a connection that nobody has asked for; return their types."""
    connection.barrier()
    return sorted(of.type_name(message.type) for message in connection.take())


def flap(bed: Bed, number: int) -> list[list[of.PortStatus]]:
    """Set a port's interface down and up again; return the port-statuses that each controller
    got.
    """
    told: list[list[of.PortStatus]] = [[] for _ in each_of(bed)]
    for up in (False, True):
        bed.wires.ports[number].set_up(up)
        for statuses, controller in zip(told, each_of(bed)):
            while not statuses or bool(statuses[-1].port.state) == up:
                message = controller.expect(Type.PORT_STATUS)
                statuses.append(of.unpack_port_status(message.body))
    return told
