#!/bin/sh
# test/gpu/run.sh runs to its end where there is no card, and says of each step why it was left out; on an emulated card: gpu_rehearse.sh.
. test/lib.sh
out=$SCRATCH/out

none() {
    SPLITINF_LIBCUDA=/nonexistent/libcuda.so.1 BUILT=1 test/gpu/run.sh --out "$SCRATCH/report" >"$out" 2>&1 || { cat "$out" >&2; return 1; }
    has "$out" "PASS build" "SKIP card" "SKIP unit" "SKIP memcheck" "SKIP verify" "SKIP beside-cpu" "SKIP faults" "SKIP kernels" "SKIP torch" \
        "SKIP split-80ms" "SKIP sessions" "SKIP overlap" "1 passed, 0 failed, 13 skipped" &&
        ! grep '^SKIP' "$out" | grep -v 'libcuda.so.1 cannot be opened'
}
check "without a card every step is skipped with the reason" none
told() { has "$SCRATCH/report/report.md" "Card: none" "| verify | SKIP,"; }
check "and a report is written" told
recorded() {
    cp docs/performance.md "$SCRATCH/before"
    SPLITINF_LIBCUDA=/nonexistent/libcuda.so.1 BUILT=1 test/gpu/run.sh --out "$SCRATCH/report" --record >"$out" 2>&1 && cmp docs/performance.md "$SCRATCH/before"
}
check "a run without a card records nothing" recorded
check "docs/performance.md has the place for it" has docs/performance.md "<!-- measured: begin -->" "<!-- measured: end -->"
