#!/bin/sh
# Many clients of one serve-cloud that come, go, and are killed; every text compared, the server's memory watched:
# test/bench/split_load.c. The short form is a test, test/e2e/split_load.sh.
#
#   test/bench/split_load.sh [SESSIONS [SECONDS [GROWTH_MB [CYCLES]]]]      64 120 8 1
#
# With more than one cycle: SECONDS of load, then rest until all sessions are gone, again and again on the same server, and
# what is resident at each rest. LOAD_MODEL=M: another model than test/models/tiny.
set -eu
cd "$(dirname -- "$0")/../.."
model=${LOAD_MODEL:-test/models/tiny}
BUILD=${BUILD:-build}
[ -n "${BUILT:-}" ] || make --no-print-directory -s "$BUILD/splitinf" "$BUILD/test/bench/split_load"
. test/bench/server.sh
server_start --model $model --front 1 --back 1 --kv-mem 64M --max-sessions 128 --max-sessions-per-pin 128 --session-ttl 5
cycles=${4:-1}
cycle=1
while [ "$cycle" -le "$cycles" ]; do
    "$BUILD/test/bench/split_load" "$dir/client" "$address" "$pin" $model "$server" "${1:-64}" "${2:-120}" "${3:-8}"
    if [ "$cycles" -gt 1 ]; then
        sleep 20 # the sessions of those who were killed, and the next time that free memory is given back
        echo "at rest after cycle $cycle: $(sed -n 's/^VmRSS:[^0-9]*//p' "/proc/$server/status") resident"
    fi
    cycle=$((cycle + 1))
done
kill "$server"
wait "$server" || { echo "the server ended with status $?" >&2; exit 1; }
server=
