#!/bin/sh
# Every kind of step of test/gpu/run.sh on an emulated card, so that none of them is run for the first time on a rented one: what
# it says of itself, the report, and that an error is a failure. Figures mean nothing. By hand, all of it:
#   SPLITINF_LIBCUDA=$PWD/build/libcuda-emu.so test/gpu/run.sh --rehearse
. test/lib.sh
out=$SCRATCH/out report=$SCRATCH/report
emu=$BUILD/libcuda-emu.so
[ -f "$emu" ] && [ -x "$BUILD/unit" ] && [ -x "$BUILD/test/bench/split_speed" ] || { echo "skip rehearsal: $emu or what it needs was not built"; exit 0; }
export SPLITINF_LIBCUDA="$emu" BUILT=1

# rehearse STATUS STEPS: the lines of the steps, one by one, are in $out.
rehearse() {
    timeout 800 test/gpu/run.sh --rehearse --record --out "$report" --only "$2" >"$out" 2>&1
    status=$?
    [ $status = "$1" ] || { echo "status $status" >&2; cat "$out" >&2; return 1; }
}
# line PATTERN: an extended regular expression, of a whole line
line() { grep -qxE -e "$1" "${2:-$out}" || { echo "no line: $1" >&2; cat "$out" >&2; return 1; }; }

cp docs/performance.md "$SCRATCH/before"
checks() {
    REHEARSE_FAMILIES=qwen2 REHEARSE_SERVER='batch/bye_ends*' REHEARSE_FAULTS=serve_cloud rehearse 0 unit,memcheck,racecheck,initcheck,beside-cpu,faults &&
        line 'PASS card +\([0-9]+ s\) Emulated card 0, .*' && line 'PASS unit +\([0-9]+ s\) 1 passed, 0 failed, 0 skipped' &&
        for tool in memcheck racecheck initcheck; do
            line "PASS $tool +\\([0-9]+ s\\) 1 passed, 0 failed, 0 skipped; 1 summaries of $tool, 0 with errors" || return 1
        done && line 'PASS beside-cpu +\([0-9]+ s\) 1 models, 0 too far from the CPU; logits at most [1-9]\.[0-9]e-0[3-9] apart' &&
        line 'PASS faults +\([0-9]+ s\) 1 scripts, [1-9][0-9]+ checks' && line '8 passed, 0 failed, 0 skipped; .*' &&
        line '\| logits beside the CPU backend, all families and weight types, on a card \| 2e-2 \| .* \| PASS \|' "$report/report.md" &&
        line "\\| the server's fault scripts, on a card \\| pass \\| .* \\| PASS \\|" "$report/report.md" &&
        line '  test/models/families/qwen2 +[0-9.e-]+' "$report/distances.txt"
}
check "the checks run, and say what they found" checks
measures() {
    REHEARSE_ROWS=1,16 rehearse 0 torch,kernels,overlap,split-80ms,sessions &&
        line 'PASS torch +\([0-9]+ s\) torch .*; 2 passes' &&
        line 'PASS kernels +\([0-9]+ s\) copies [0-9]+ GB/s, matrices null TFLOP/s \(cuBLASLt .*\); [012] passes meet their goal, [012] miss it' &&
        line 'PASS overlap +\([0-9]+ s\) 1 passes measured both ways' &&
        line 'PASS split-80ms +\([0-9]+ s\) cpu edges [0-9.]+ tok/s, overhead [0-9.]+ ms; cuda edges [0-9.]+ tok/s, overhead [0-9.]+ ms' &&
        line 'PASS sessions +\([0-9]+ s\) [1-9][0-9]* texts compared, 0 wrong, 0 failed; test/models/tiny: [0-9.]+ tokens/s together; the slowest .*' &&
        line '7 passed, 0 failed, 0 skipped; .*'
}
check "so do the measurements" measures
reported() {
    line '\| test/models/families/mistral-v01, pass of 1 rows \| 80 % \| [0-9]+ % \| (PASS|MISS) \|' "$report/report.md" &&
        line '\| test/models/families/mistral-v01, pass of 16 rows \| 75 % \| [0-9]+ % \| (PASS|MISS) \|' "$report/report.md" &&
        line '\| test/models/families/mistral-v01, beside PyTorch on the same card \| faster \| in [0-2] of 2 \| (PASS|MISS) \|' "$report/report.md" &&
        line '\| split at 80 ms, edges on the CPU: own overhead of a step \| 3 ms \| [0-9.]+ ms; [0-9.]+ tok/s \| (PASS|MISS) \|' "$report/report.md" &&
        line '\| 4 sessions: tokens per second, fairness \| - \| [0-9.]+ tokens/s together; .* \| - \|' "$report/report.md" &&
        line 'pass, [0-9]+ layers, at 16 +16 +[0-9.]+ +[0-9.]+ .* 75% (PASS|MISS) +0\.1600 +[0-9.]+' "$report/report.md" &&
        [ "$(grep -c 'edges, .* tok/s, .* tokens a step, own overhead of a step' "$report/split.txt")" = 4 ]
}
check "the report has a line for each goal" reported
check "and docs/performance.md stays as it was" cmp docs/performance.md "$SCRATCH/before"

failure() {
    FAKE_ERRORS=3 rehearse 1 racecheck && line 'FAIL racecheck +\([0-9]+ s\) .*; 1 summaries of racecheck, 1 with errors' && line '2 passed, 1 failed, 0 skipped; .*'
}
check "what a sanitizer finds is a failed step and a failed run" failure
usage() { # TEXT OPTION...
    text=$1
    shift
    test/gpu/run.sh --out "$report" "$@" >"$out" 2>&1
    [ $? = 2 ] && has "$out" "$text"
}
check "a step that is none is named" usage "--only kernel: the steps are" --only kernel
check "recorded answers need their tokenizer" usage "needs the --tokenizer" --replay test/lib.sh
check "and are there" usage "/nonexistent cannot be read" --replay /nonexistent
