"""What the controllers of a bed are told."""

from lab import openflow10 as of
from lab.bigswitch import Bed
from lab.controller import Connection, Controller
from lab.openflow10 import Type


def each_of(bed: Bed) -> list[Controller]:
    """Return all controllers of a bed."""
    return [bed.controller, *bed.others]


def kinds(connection: Connection) -> list[str]:
    """Return what has come on a connection that nobody has asked for, and take it."""
    connection.barrier()
    return sorted(of.type_name(message.type) for message in connection.take())


def flap(bed: Bed, number: int) -> list[list[of.PortStatus]]:
    """Shut a port's interface down and up again; return what each controller was told of it."""
    told: list[list[of.PortStatus]] = [[] for _ in each_of(bed)]
    for up in (False, True):
        bed.wires.ports[number].set_up(up)
        for statuses, controller in zip(told, each_of(bed)):
            while not statuses or bool(statuses[-1].port.state) == up:
                message = controller.expect(Type.PORT_STATUS)
                statuses.append(of.unpack_port_status(message.body))
    return told
