#!/bin/sh
# Throughput of 8 sessions against one, and what a long prefill costs those who decode: test/bench/split_speed.c against a
# serve-cloud process of its own. Needs ./build.sh, and a machine that does nothing else.
#
#   test/bench/split_speed.sh [MODEL [PREFILL [SECONDS]]]      random:llama-3.2-1b/6 4000 5
set -eu
cd "$(dirname -- "$0")/../.."
model=${1:-random:llama-3.2-1b/6}
BUILD=${BUILD:-build}
make --no-print-directory -s "$BUILD/splitinf" "$BUILD/test/bench/split_speed"
. test/bench/server.sh
server_start --model "$model" --front 1 --back 1 --kv-mem 4G --max-ctx 6144
"$BUILD/test/bench/split_speed" "$dir/client" "$address" "$pin" "$model" "${2:-4000}" "${3:-5}"
