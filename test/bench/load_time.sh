#!/bin/sh
# From start to the first token, against the time to read the model's bytes once. Cold: the page cache is dropped before
# each run, for which this has to be root. MODEL is a directory or file of a few GB; TOKENIZER any tokenizer whose
# vocabulary fits (test/models/tiny does for random weights).
#
#   test/bench/load_time.sh MODEL [TOKENIZER] [RUNS]
set -eu
cd "$(dirname -- "$0")/../.."
model=$1 tokenizer=${2:-test/models/tiny} runs=${3:-3}
files=$model
[ ! -d "$model" ] || files=$(ls "$model"/*.safetensors)

drop() {
    sync
    [ "$1" = warm ] || echo 3 >/proc/sys/vm/drop_caches || { echo "cannot drop the page cache: not root" >&2; exit 1; }
}
ms() { echo $(($(date +%s%N) / 1000000)); }
# shellcheck disable=SC2086 # file names without spaces
read_once() { cat $files >/dev/null; }
first_token() {
    ./splitinf chat --local --model "$model" --tokenizer "$tokenizer" --raw --prompt "The" --max-tokens 1 --quiet >/dev/null
}

for state in cold warm; do
    i=0
    while [ "$i" -lt "$runs" ]; do
        drop $state
        t0=$(ms)
        read_once
        t1=$(ms)
        drop $state
        t2=$(ms)
        first_token
        t3=$(ms)
        echo "$state: read $((t1 - t0)) ms, first token $((t3 - t2)) ms, ratio $(awk "BEGIN { printf \"%.2f\", ($t3 - $t2) / ($t1 - $t0) }")"
        i=$((i + 1))
    done
done
