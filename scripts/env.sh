# Sourced by the scripts beside it: the one place that says where POX and Python are.
# shellcheck shell=bash

EDGE_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
EDGE_PYTHON=$EDGE_ROOT/.venv/bin/python
# Mininet is a Debian package, so only the system's Python sees it.
SYSTEM_PYTHON=/usr/bin/python3

POX_URL=https://github.com/noxrepo/pox
POX_BRANCH=halosaur
POX_COMMIT=20d291825de5e1038e4500382e842e4f95b5731a

# die MESSAGE: one line on stderr, named after the running script; exit status 1.
die() {
    echo "${0##*/}: $*" >&2
    exit 1
}

# is_halosaur DIR: whether DIR is a checkout of the POX branch that this project runs on.
is_halosaur() {
    [ -f "$1/pox.py" ] && grep -qs "version_name = \"$POX_BRANCH\"" "$1/pox/core.py"
}

# find_pox: sets and exports POX_HOME: itself where it is set, or the first of ./.pox, ~/pox, ../pox.
# Status 1 where there is none.
find_pox() {
    if [ -n "${POX_HOME:-}" ]; then
        is_halosaur "$POX_HOME" ||
            die "POX_HOME=$POX_HOME is not a POX $POX_BRANCH checkout: correct it, or unset it to have one cloned"
        POX_HOME=$(cd "$POX_HOME" && pwd)
        export POX_HOME
        return 0
    fi
    local user_home dir
    # Under sudo, ~ is root's: the POX that the user means is in the home of who called.
    user_home=$(getent passwd "${SUDO_USER:-$(id -un)}" | cut -d: -f6)
    for dir in "$EDGE_ROOT/.pox" "${user_home:-$HOME}/pox" "$EDGE_ROOT/../pox"; do
        if is_halosaur "$dir"; then
            POX_HOME=$(cd "$dir" && pwd)
            export POX_HOME
            return 0
        fi
    done
    return 1
}

# need_root WHAT: ends the script with one line unless it runs as root.
need_root() {
    [ "$(id -u)" -eq 0 ] || die "$1 needs root: sudo $0"
}
