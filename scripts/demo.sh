#!/bin/bash
# Shows the big switch at work: a network with tunnels, edge.aggregator, and a controller that sees one
# switch. Every host pings every host; the exit status is 0 only when all pings came back.
#
# usage: sudo scripts/demo.sh [--switches N] [--hosts N] [--cli] [--web [PORT]]
set -u
. "$(dirname "$0")/env.sh"

case " $* " in *" -h "* | *" --help "*) exec "$SYSTEM_PYTHON" "$EDGE_ROOT/scripts/demo.py" --help ;; esac
# Without a trap, bash goes on when it is interrupted while a command ends by itself.
trap 'exit 130' INT
need_root "the demo (it makes network namespaces)"
"$EDGE_ROOT/scripts/setup.sh" || exit
find_pox || exit
# demo.py takes the signal when it is ready to: an earlier one would be a traceback.
exec env --block-signal=INT "$EDGE_PYTHON" "$EDGE_ROOT/scripts/demo.py" "$@"
