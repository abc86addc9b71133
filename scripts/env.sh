# The scripts beside this file source it.  It alone says where POX and Python are.
# shellcheck shell=bash
# SC2034: the variables below are used by the scripts that source this file.
# shellcheck disable=SC2034

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

# is_halosaur DIR: status 0 when DIR is a checkout of the POX branch that this project runs on.
is_halosaur() {
    [ -f "$1/pox.py" ] && grep -qs "version_name = \"$POX_BRANCH\"" "$1/pox/core.py"
}

# find_pox: finds POX and exports its directory as POX_HOME.  A POX_HOME that is set already is taken;
# otherwise the first checkout of ./.pox, ~/pox, ../pox.  Status 1 when there is none.
find_pox() {
    if [ -n "${POX_HOME:-}" ]; then
        is_halosaur "$POX_HOME" ||
            die "POX_HOME=$POX_HOME is not a POX $POX_BRANCH checkout: correct it, or unset it to have one cloned"
        POX_HOME=$(cd "$POX_HOME" && pwd)
        export POX_HOME
        return 0
    fi
    local user_home dir
    # Under sudo, ~ is the home of root; the POX of the user is in the home of who called sudo.
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

# need_root WHAT: ends the script with one line, which says that WHAT needs root, unless it is root.
need_root() {
    [ "$(id -u)" -eq 0 ] || die "$1 needs root: sudo $0"
}
