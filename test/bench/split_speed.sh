#!/bin/sh
# Throughput of 8 sessions against one, and what a long prefill costs those who decode: test/bench/split_speed.c against a
# serve-cloud process of its own. Needs ./build.sh, and a machine that does nothing else. With SESSIONS: what so many that
# decode get together, and how evenly. SPLITINF_BACKEND and SPLITINF_DEVICE say what the server computes on.
#
#   test/bench/split_speed.sh [MODEL [PREFILL [SECONDS [SESSIONS [KV_MEM [CTX]]]]]]      random:llama-3.2-1b/6 4000 5
set -eu
cd "$(dirname -- "$0")/../.."
model=${1:-random:llama-3.2-1b/6}
BUILD=${BUILD:-build}
[ -n "${BUILT:-}" ] || make --no-print-directory -s "$BUILD/splitinf" "$BUILD/test/bench/split_speed"
. test/bench/server.sh
server_start --model "$model" --front 1 --back 1 --kv-mem "${5:-4G}" --max-ctx "${6:-6144}" --max-sessions 256 --max-sessions-per-pin 256
"$BUILD/test/bench/split_speed" "$dir/client" "$address" "$pin" "$model" "${2:-4000}" "${3:-5}" ${4:+"$4"} ${6:+"$6"}
