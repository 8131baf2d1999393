#!/bin/sh
# Fuzzes every target for some seconds, one process per core, and ends with one line: "N passed, N failed, N skipped".
#
#   test/fuzz/run.sh DIR SECONDS [NAME...]
#
# The target NAME is DIR/fuzz_NAME (test/fuzz/fuzz_NAME.c); it starts from test/fuzz/corpus/NAME, which it does not change. What it
# finds worth keeping goes to DIR/corpus/NAME, where the next run starts as well. An input that fails is written to
# DIR/found/NAME-*; run it again with `DIR/fuzz_NAME FILE`, mend the bug, and add the file to the corpus.
set -u
cd "$(dirname -- "$0")/../.." || exit 1
[ $# -ge 2 ] || { echo "usage: test/fuzz/run.sh DIR SECONDS [NAME...]" >&2; exit 2; }
dir=$1 seconds=$2
shift 2
if [ $# = 0 ]; then
    for f in test/fuzz/fuzz_*.c; do
        [ ! -f "$f" ] || { f=${f##*/fuzz_}; set -- "$@" "${f%.c}"; }
    done
fi

one() {
    name=$1
    mkdir -p "$dir/corpus/$name" "$dir/found" "test/fuzz/corpus/$name"
    dict=
    [ ! -f "test/fuzz/$name.dict" ] || dict=-dict=test/fuzz/$name.dict
    # A model file's parser must not take memory that the file does not back, so the limit is low. A single input has
    # ten seconds, which is a hang.
    # shellcheck disable=SC2086 # one word or none
    timeout -k 10 $((seconds + 60)) "$dir/fuzz_$name" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
        -malloc_limit_mb=512 -max_len=65536 -print_final_stats=1 -artifact_prefix="$dir/found/$name-" $dict \
        "$dir/corpus/$name" "test/fuzz/corpus/$name" >"$dir/$name.log" 2>&1 </dev/null
    status=$?
    runs=$(sed -n 's/^stat::number_of_executed_units: //p' "$dir/$name.log")
    if [ $status = 0 ] && [ "${runs:-0}" -gt 0 ]; then
        echo "ok $name: $runs inputs"
    else
        echo "not ok $name: status $status"
        grep -nE 'ERROR|SUMMARY|runtime error|Test unit written' "$dir/$name.log" | sed 's/^/    /'
        tail -n 30 "$dir/$name.log" | sed 's/^/    /'
    fi
}

rm -rf "$dir/found"
results=$(mktemp)
trap 'rm -f "$results"' EXIT
slots=$(nproc 2>/dev/null || echo 2)
n=0
for name; do
    one "$name" >"$dir/$name.result" &
    n=$((n + 1))
    [ $((n % slots)) != 0 ] || wait
done
wait
for name; do cat "$dir/$name.result"; done | tee "$results"
failed=$(grep -c '^not ok' "$results")
echo "$(grep -c '^ok' "$results") passed, $failed failed, 0 skipped"
[ "$failed" = 0 ] && [ $n != 0 ]
