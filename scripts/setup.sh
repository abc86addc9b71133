#!/bin/bash
# Makes this machine ready: installs Debian's packages, a Python environment for the tests, and POX.
# It may be run again at any time: it does what is missing, and without that it uses no network.
#
# usage: [sudo] scripts/setup.sh
set -u
. "$(dirname "$0")/env.sh"

# One set-up at a time. With -o a service that apt starts does not inherit the lock, and so does not
# hold it for ever.
if [ -z "${EDGE_SETUP_LOCKED:-}" ]; then
    EDGE_SETUP_LOCKED=1 exec flock -o "$EDGE_ROOT/scripts" "$0" "$@"
fi

failed=0

# missing WHAT WHAT-TO-DO: prints a line about something that could not be installed.
missing() {
    echo "setup.sh: $1: $2" >&2
    failed=1
}

# quietly COMMAND...: runs COMMAND, shows the end of its output only when it fails; has its status.
quietly() {
    local said status
    said=$("$@" 2>&1 </dev/null)
    status=$?
    [ "$status" -eq 0 ] || tail -n 12 <<<"$said" >&2
    return "$status"
}

# Each command that the scripts or tests run, and the Debian package that it is in.
COMMANDS="
    ovs-vswitchd:openvswitch-switch
    ovs-vsctl:openvswitch-switch
    mnexec:mininet
    ovs-testcontroller:openvswitch-testcontroller
    ip:iproute2
    ethtool:ethtool
    tcpdump:tcpdump
    openssl:openssl
    iperf3:iperf3
    chromium:chromium
    chromedriver:chromium-driver
    ping:iputils-ping
    ifconfig:net-tools
    git:git
    unshare:util-linux
    nsenter:util-linux
    flock:util-linux
    modprobe:kmod
"

# packages_missing: prints the names of the Debian packages whose commands are not there.
packages_missing() {
    local pair
    for pair in $COMMANDS; do
        # Daemons are in sbin, which a plain user's PATH leaves out.
        PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%:*}" >/dev/null || echo "${pair##*:}"
    done
    # The documented command is `sudo python scripts/agg_net.py`; a plain Debian has only `python3`.
    command -v python >/dev/null || echo python-is-python3
    "$SYSTEM_PYTHON" -c "import mininet" 2>/dev/null || echo mininet
    "$SYSTEM_PYTHON" -c "import ensurepip" 2>/dev/null || echo python3-venv
    [ -e /etc/ssl/certs/ca-certificates.crt ] || echo ca-certificates
}

install_packages() {
    local wanted
    mapfile -t wanted < <(packages_missing | sort -u)
    [ "${#wanted[@]}" -gt 0 ] || return 0
    if ! command -v apt-get >/dev/null; then
        missing "no apt-get here to install ${wanted[*]}" "install what brings the same commands, then run this again"
        return
    fi
    if [ "$(id -u)" -ne 0 ]; then
        missing "not installed: ${wanted[*]}" "sudo $0"
        return
    fi
    echo "Installing ${wanted[*]}"
    export DEBIAN_FRONTEND=noninteractive
    if ! { quietly apt-get -q update && quietly apt-get -q install -y --no-install-recommends "${wanted[@]}"; }; then
        missing "apt-get could not install ${wanted[*]}" "see its messages above; it needs Debian's package servers"
        return
    fi
    case " ${wanted[*]} " in *" openvswitch-testcontroller "*)
        # The package starts a controller as a service, which nothing here uses.
        { systemctl disable --now openvswitch-testcontroller || service openvswitch-testcontroller stop; } >/dev/null 2>&1
        ;;
    esac
}

install_python() {
    local wanted stamp=$EDGE_ROOT/.venv/requirements.sha256
    wanted=$(sha256sum <"$EDGE_ROOT/requirements-test.txt")
    [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && "$EDGE_PYTHON" -c "import mininet, pytest" 2>/dev/null && return
    if ! "$EDGE_PYTHON" -c "import mininet, pip" 2>/dev/null; then
        echo "Making the Python environment $EDGE_ROOT/.venv"
        # --system-site-packages: that is where Mininet is.
        if ! quietly "$SYSTEM_PYTHON" -m venv --clear --system-site-packages "$EDGE_ROOT/.venv"; then
            missing "could not make $EDGE_ROOT/.venv" "see the message above"
            return
        fi
    fi
    echo "Installing what the tests need from PyPI"
    if ! quietly "$EDGE_PYTHON" -m pip --disable-pip-version-check install -r "$EDGE_ROOT/requirements-test.txt"; then
        missing "pip could not install requirements-test.txt" "see its messages above; it needs PyPI"
        return
    fi
    echo "$wanted" >"$stamp"
    give_back "$EDGE_ROOT/.venv"
}

install_pox() {
    find_pox && return
    local part=$EDGE_ROOT/.pox.part
    echo "Cloning POX ($POX_BRANCH, ${POX_COMMIT:0:12}) into $EDGE_ROOT/.pox"
    rm -rf "$part"
    if quietly git clone --branch "$POX_BRANCH" "$POX_URL" "$part" &&
        quietly git -C "$part" checkout --detach "$POX_COMMIT"; then
        rm -rf "$EDGE_ROOT/.pox"
        mv "$part" "$EDGE_ROOT/.pox"
        give_back "$EDGE_ROOT/.pox"
        find_pox
    else
        rm -rf "$part"
        missing "could not clone POX" "needs $POX_URL, or a $POX_BRANCH checkout named by POX_HOME, in ~/pox or in ../pox"
    fi
}

# give_back DIR: under sudo, makes the user who called sudo the owner of DIR.
give_back() {
    if [ -n "${SUDO_UID:-}" ]; then
        chown -R "$SUDO_UID:${SUDO_GID:-$SUDO_UID}" "$1"
    fi
}

install_packages
# Without the packages the rest would fail too.
if [ "$failed" -eq 0 ]; then
    install_python
    install_pox
fi
if [ "$failed" -ne 0 ]; then
    exit 1
fi
echo "Ready: $("$EDGE_PYTHON" --version), POX in $POX_HOME"
