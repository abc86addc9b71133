"""A learning switch for os-ken. test_controllers.py runs it with a Python that has os-ken.

python learning_switch.py ADDRESS PORT

Like other os-ken programs it offers OpenFlow 1.3 as well, and uses 1.0 when the switch offers no
more.
"""

import sys

from os_ken import cfg
from os_ken.base import app_manager
from os_ken.controller import ofp_event
from os_ken.controller.handler import MAIN_DISPATCHER, set_ev_cls
from os_ken.lib.packet import ethernet, packet
from os_ken.ofproto import ofproto_v1_0, ofproto_v1_3


class LearningSwitch(app_manager.OSKenApp):
    """Learns where addresses are, adds a flow for each pair of addresses, and floods the rest."""

    OFP_VERSIONS = [ofproto_v1_0.OFP_VERSION, ofproto_v1_3.OFP_VERSION]

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.port_of = {}

    @set_ev_cls(ofp_event.EventOFPPacketIn, MAIN_DISPATCHER)
    def packet_in(self, event):
        message = event.msg
        datapath, ofproto, parser = (
            message.datapath,
            message.datapath.ofproto,
            message.datapath.ofproto_parser,
        )
        assert ofproto.OFP_VERSION == ofproto_v1_0.OFP_VERSION
        frame = packet.Packet(message.data).get_protocol(ethernet.ethernet)
        self.port_of[frame.src] = message.in_port
        port = self.port_of.get(frame.dst, ofproto.OFPP_FLOOD)
        actions = [parser.OFPActionOutput(port)]
        if port != ofproto.OFPP_FLOOD:
            match = parser.OFPMatch(in_port=message.in_port, dl_src=frame.src, dl_dst=frame.dst)
            datapath.send_msg(
                parser.OFPFlowMod(
                    datapath=datapath,
                    match=match,
                    cookie=0,
                    command=ofproto.OFPFC_ADD,
                    idle_timeout=60,
                    flags=ofproto.OFPFF_SEND_FLOW_REM,
                    actions=actions,
                )
            )
        datapath.send_msg(
            parser.OFPPacketOut(
                datapath=datapath,
                buffer_id=message.buffer_id,
                in_port=message.in_port,
                actions=actions,
                data=message.data,
            )
        )


if __name__ == "__main__":
    cfg.CONF([f"--ofp-listen-host={sys.argv[1]}", f"--ofp-tcp-listen-port={sys.argv[2]}"])
    # os-ken gets the module's name, as for its own applications (the handshake's, for example).
    app_manager.AppManager.run_apps(["learning_switch"])
