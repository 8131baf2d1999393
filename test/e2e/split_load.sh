#!/bin/sh
# The short form of test/bench/split_load.sh: 8 sessions and some clients that are killed, 5 seconds, every text compared.
. test/lib.sh

# The memory of a sanitizer says nothing about ours.
case $BUILD in *debug* | *tsan*) growth=0 ;; *) growth=16 ;; esac
load() { BUILT=1 timeout 600 test/bench/split_load.sh 8 5 $growth >"$SCRATCH/out" 2>&1 || { cat "$SCRATCH/out" >&2; return 1; }; }
check "8 sessions at once, others that are killed, all texts right and no growth" load
compared() { grep -qE '^8 sessions, .* [1-9][0-9]* texts compared, 0 wrong, 0 failed; .* [1-9][0-9]* clients killed' "$SCRATCH/out"; }
check "and there was something to compare" compared
