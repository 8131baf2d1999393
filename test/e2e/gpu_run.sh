#!/bin/sh
# test/gpu/run.sh runs to its end where there is no card, and says of each step why it was left out; a failed step is a failed run.
. test/lib.sh
out=$SCRATCH/out

none() {
    SPLITINF_LIBCUDA=/nonexistent/libcuda.so.1 BUILT=1 test/gpu/run.sh --out "$SCRATCH/report" >"$out" 2>&1 || { cat "$out" >&2; return 1; }
    has "$out" "PASS build" "SKIP card" "SKIP unit" "SKIP memcheck" "SKIP verify" "SKIP beside-cpu" "SKIP faults" "SKIP kernels" "SKIP torch" \
        "SKIP split-80ms" "SKIP sessions" "1 passed, 0 failed, 12 skipped" &&
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

emu=$BUILD/libcuda-emu.so
if [ ! -f "$emu" ]; then
    echo "skip emulated card: there is no $emu"
    exit 0
fi
emulated() {
    SPLITINF_LIBCUDA=$emu BUILT=1 timeout 800 test/gpu/run.sh --out "$SCRATCH/report" --only card,beside-cpu >"$out" 2>&1 || { cat "$out" >&2; return 1; }
    has "$out" "PASS card" "Emulated card" "PASS beside-cpu" "2 models, 0 too far from the CPU" "2 passed, 0 failed, 0 skipped"
}
check "on an emulated card the checks run" emulated
