#!/bin/bash
# Checks the code, then runs all tests, four files of them at a time since most of them wait most of
# the time, and prints how much of the component they have run (settings: pyproject.toml, ruff.toml,
# .shellcheckrc). Arguments go to pytest, and then the coverage is not measured:
# `sudo scripts/test.sh tests/system -k tunnels -x`; `-n 0` runs one test after the other.
# The last line on stdout is pytest's summary. The exit status is 0 only when the checks and the
# tests have passed and the coverage is not below its floor; each that failed is a line on stderr.
set -u
. "$(dirname "$0")/env.sh"

need_root "a test run (it makes network namespaces)"
"$EDGE_ROOT/scripts/setup.sh" || exit
find_pox || exit
cd "$EDGE_ROOT" || exit

complaints=()

# check NAME COMMAND...: runs COMMAND; when it fails, shows what it prints and remembers a complaint.
check() {
    local name=$1 said
    shift
    if ! said=$("$@" 2>&1 </dev/null); then
        printf '%s\n' "$said"
        complaints+=("$name has complaints: they stand above the tests ('${*/#"$EDGE_ROOT/"/}')")
    fi
}

check "ruff check" "$EDGE_PYTHON" -m ruff check --quiet
check "ruff format" "$EDGE_PYTHON" -m ruff format --diff --quiet
check mypy "$EDGE_PYTHON" -m mypy --no-error-summary
check import-linter env PYTHONPATH=pox_ext "$EDGE_ROOT/.venv/bin/lint-imports" --no-logo
check shellcheck "$EDGE_ROOT/.venv/bin/shellcheck" scripts/*.sh .ci/run

coverage=()
[ $# -gt 0 ] || coverage=(--cov --cov-config=pyproject.toml --cov-fail-under=0)
"$EDGE_PYTHON" -m pytest -n 4 --dist loadfile "${coverage[@]}" "$@"
status=$?

if [ "${#coverage[@]}" -gt 0 ] && ! total=$("$EDGE_PYTHON" -m coverage report --format=total); then
    complaints+=("the tests run $total % of the component, less than the floor (fail_under in pyproject.toml)")
fi
for complaint in "${complaints[@]}"; do
    echo "test.sh: $complaint" >&2
    [ "$status" -ne 0 ] || status=1
done
exit "$status"
