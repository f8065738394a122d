#!/usr/bin/env bash
# The quickstart as its reader meets it: the files and the replies shown in docs/quickstart.md, an empty folder, and
# the wheel. Under 60 s from `pip install` to the first reply.
#
#   .ci/quickstart.sh dist/rpcfw-0.1.0-py3-none-any.whl
#
# In the page, a line `<!-- file: app.py -->` before a fenced block names it as that file, and `<!-- output: call -->`
# or `<!-- output: client.py -->` as what is printed.
set -euo pipefail
[ $# = 1 ] && [ -f "$1" ] || { echo "usage: $0 WHEEL ('make build' makes one in dist/)" >&2; exit 2; }
wheel=$(realpath "$1")
page=$(realpath "$(dirname "$0")/../docs/quickstart.md")
LIMIT_S=60

folder=$(mktemp -d)
server=
finish() {
    if [ -n "$server" ]; then
        kill -KILL "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    fi
    rm -rf "$folder"
}
trap finish EXIT
cd "$folder"

fail() {
    echo "quickstart: $1" >&2
    if [ -s server.log ]; then
        echo "--- the server said" >&2
        cat server.log >&2
    fi
    exit 1
}

# block KIND NAME: the text of the fenced block after <!-- KIND: NAME -->
block() {
    awk -v marker="<!-- $1: $2 -->" '
        !seen && index($0, marker) == 1 { seen = 1; next }
        seen && !inside && /^```/       { inside = 1; next }
        inside && /^```/                { complete = 1; exit }
        inside                          { print }
        END                             { exit !complete }
    ' "$page" || fail "docs/quickstart.md has no fenced block after '<!-- $1: $2 -->'"
}

# expect WHAT EXPECTED ACTUAL
expect() {
    [ "$2" = "$3" ] || fail "$1 printed
$3
and docs/quickstart.md says
$2"
}

block file app.py >app.py
block file client.py >client.py
block output call >call.expected
block output client.py >client.expected

python3 -m venv venv
start=$(date +%s%N)
venv/bin/python -m pip install --quiet "$wheel"
PATH=$folder/venv/bin:$PATH

rpcfw run app.py >server.log 2>&1 &
server=$!
until grep -q serving server.log; do
    kill -0 "$server" 2>/dev/null || fail "'rpcfw run app.py' ended before it was serving"
    [ $(($(date +%s%N) - start)) -lt ${LIMIT_S}000000000 ] || fail "'rpcfw run app.py' said nothing of serving"
    sleep 0.05
done

reply=$(rpcfw call Greeter.hello name=Ada) || fail "'rpcfw call Greeter.hello name=Ada' exited with $?"
took_ms=$((($(date +%s%N) - start) / 1000000))
expect "'rpcfw call Greeter.hello name=Ada'" "$(cat call.expected)" "$reply"

printed=$(python client.py) || fail "'python client.py' exited with $?"
expect "'python client.py'" "$(cat client.expected)" "$printed"

kill -TERM "$server"
status=0
wait "$server" || status=$?
server=
[ $status = 0 ] || fail "the server exited with $status after SIGTERM, not 0"

printf 'quickstart: %d.%d s from pip install to the first reply (limit %d s)\n' \
    $((took_ms / 1000)) $((took_ms % 1000 / 100)) $LIMIT_S
[ $took_ms -lt ${LIMIT_S}000 ] || fail "that is too long"
