#!/bin/sh
# Many clients of one serve-cloud that come, go, and are killed; every text compared, the server's memory watched:
# test/bench/split_load.c. The short form is a test, test/e2e/split_load.sh.
#
#   test/bench/split_load.sh [SESSIONS [SECONDS [GROWTH_MB]]]      64 120 8
set -eu
cd "$(dirname -- "$0")/../.."
model=test/models/tiny
BUILD=${BUILD:-build}
[ -n "${BUILT:-}" ] || make --no-print-directory -s "$BUILD/splitinf" "$BUILD/test/bench/split_load"
. test/bench/server.sh
server_start --model $model --front 1 --back 1 --kv-mem 64M --max-sessions 128 --max-sessions-per-pin 128 --session-ttl 5
"$BUILD/test/bench/split_load" "$dir/client" "$address" "$pin" $model "$server" "${1:-64}" "${2:-120}" "${3:-8}"
kill "$server"
wait "$server" || { echo "the server ended with status $?" >&2; exit 1; }
server=
