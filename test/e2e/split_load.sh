#!/bin/sh
# The short form of test/bench/split_load.sh: 8 sessions and some clients that are killed, 5 seconds, every text compared. Under
# ThreadSanitizer half of them, for less long: there it is about their threads, and takes a minute otherwise.
. test/lib.sh

# The memory of a sanitizer says nothing about ours.
case $BUILD in *debug* | *tsan*) growth=0 ;; *) growth=16 ;; esac
case $BUILD in *tsan*) sessions=4 seconds=2 ;; *) sessions=8 seconds=5 ;; esac
load() { BUILT=1 timeout 600 test/bench/split_load.sh $sessions $seconds $growth >"$SCRATCH/out" 2>&1 || { cat "$SCRATCH/out" >&2; return 1; }; }
check "sessions at once, others that are killed, all texts right and no growth" load
compared() { grep -qE "^$sessions sessions, .* [1-9][0-9]* texts compared, 0 wrong, 0 failed; .* [1-9][0-9]* clients killed" "$SCRATCH/out"; }
check "and there was something to compare" compared
