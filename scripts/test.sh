#!/bin/bash
# Lint, then all tests, two files of them at a time (`-n 0`: one test after the other). Arguments go to pytest:
# `sudo scripts/test.sh -k tunnels -x`.
# The last line is pytest's summary; the exit status is 0 only when lint and tests passed.
set -u
. "$(dirname "$0")/env.sh"

need_root "a test run (it makes network namespaces)"
"$EDGE_ROOT/scripts/setup.sh" || exit
find_pox || exit
cd "$EDGE_ROOT" || exit

lint=0
"$EDGE_PYTHON" -m ruff check --quiet || lint=1
"$EDGE_PYTHON" -m ruff format --check --quiet || lint=1

"$EDGE_PYTHON" -m pytest tests -n 2 --dist loadfile "$@"
status=$?
if [ "$lint" -ne 0 ]; then
    [ "$status" -ne 0 ] || status=1
    echo "test.sh: ruff has complaints: they stand above the tests ('.venv/bin/python -m ruff check', '... ruff format --diff')" >&2
fi
exit "$status"
