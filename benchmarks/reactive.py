"""The quickest controller possible in Python: one connection, no library, no state.

    python benchmarks/reactive.py ADDRESS PORT flow_mod|packet_out

It answers a packet-in with a packet-out of the frame.  With flow_mod, it sends a flow-mod for the
in_port and the two Ethernet addresses before that, in the same piece.  The last two bytes of the
frame's destination address are the egress port.  flow_setup.py runs it.
"""

import socket
import sys

import bench  # noqa: F401  puts the lab on the path
from lab import openflow10 as of


def answer(packet_in: of.PacketIn, with_flow: bool) -> bytes:
    """Return what the controller sends because of a packet-in."""
    frame = packet_in.data
    actions = of.output(int.from_bytes(frame[4:6], "big"))
    out = of.packet_out(frame, actions, packet_in.in_port)
    if not with_flow:
        return out
    match = of.match(in_port=packet_in.in_port, dl_dst=frame[:6].hex(), dl_src=frame[6:12].hex())
    return of.flow_mod(match, actions) + out


def serve(connection: socket.socket, with_flow: bool) -> None:
    """Speak OpenFlow until the switch goes."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(of.message(of.Type.HELLO) + of.message(of.Type.FEATURES_REQUEST))
    buffer = b""
    while True:
        received = connection.recv(1 << 16)
        if not received:
            return
        buffer += received
        replies = []
        while len(buffer) >= 8 and len(buffer) >= int.from_bytes(buffer[2:4], "big"):
            length = int.from_bytes(buffer[2:4], "big")
            message, buffer = of.unpack(buffer[:length]), buffer[length:]
            if message.type == of.Type.PACKET_IN:
                replies.append(answer(of.unpack_packet_in(message.body), with_flow))
            elif message.type == of.Type.ECHO_REQUEST:
                replies.append(of.message(of.Type.ECHO_REPLY, message.body, message.xid))
        if replies:
            connection.sendall(b"".join(replies))


def main() -> None:
    """Serve one switch after another."""
    address, port, mode = sys.argv[1:]
    with socket.create_server((address, int(port))) as listener:
        while True:
            connection, _ = listener.accept()
            with connection:
                serve(connection, mode == "flow_mod")


if __name__ == "__main__":
    main()
