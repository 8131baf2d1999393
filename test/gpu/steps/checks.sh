# shellcheck shell=sh
# shellcheck disable=SC2034,SC2154 # variables of run.sh, which reads this
# What is right or wrong, on any card.

gpu_suites=${REHEARSE_SUITES:-gpu*/*}
# The counts of a TAP report.
tap_counts() { echo "$(grep -c '^ok [^#]*$' "$1") passed, $(grep -c '^not ok' "$1") failed, $(grep -c '^ok .*# SKIP' "$1") skipped"; }

unit_tests() {
    needs_card || return 77
    [ -x "$build/unit" ] || skip "there is no $build/unit" || return
    if [ -n "$emulated" ]; then unset SPLITINF_TEST_GPU; else export SPLITINF_TEST_GPU=1; fi
    at_once=$((jobs < 8 ? jobs : 8)) # each has a context of its own, half a gigabyte of the card
    (unset SPLITINF_LIBCUDA; "$build/unit" --ignore-warnings --timeout 1200 -j"$at_once" --filter "$gpu_suites" --tap="$scratch/tap")
    status=$?
    # Tests that the filter leaves out are reported as skipped, with this reason.
    sed -i '/# SKIP test was skipped$/d' "$scratch/tap"
    cat "$scratch/tap"
    said=$(tap_counts "$scratch/tap")
    [ $status = 0 ] && grep -q '^ok [^#]*$' "$scratch/tap"
}

# sanitizer TOOL [OPTION...]: each test is a process, and reports for itself.
sanitizer() {
    needs_real || return 77
    [ -x "$build/unit" ] || skip "there is no $build/unit" || return
    kind=$1
    shift
    tool=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | head -n 1)
    [ -n "$tool" ] || skip "there is no compute-sanitizer" || return
    (if [ -n "$emulated" ]; then unset SPLITINF_LIBCUDA SPLITINF_TEST_GPU; else export SPLITINF_TEST_GPU=1; fi
        "$tool" --tool "$kind" "$@" --target-processes all --error-exitcode 9 "$build/unit" --ignore-warnings --timeout 3600 -j1 \
            --filter "$gpu_suites" --tap="$scratch/tap" >"$scratch/out" 2>&1)
    status=$?
    cat "$scratch/out"
    sed -i '/# SKIP test was skipped$/d' "$scratch/tap"
    # "ERROR SUMMARY: 0 errors", "RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)"
    n=$(grep -c '^=* *[A-Z]* SUMMARY: ' "$scratch/out")
    bad=$(grep '^=* *[A-Z]* SUMMARY: ' "$scratch/out" | grep -cv 'SUMMARY: 0 ')
    said="$(tap_counts "$scratch/tap"); $n summaries of $kind, $bad with errors"
    [ $status = 0 ] && [ "$bad" = 0 ] && [ "$n" -gt 0 ] && grep -q '^ok [^#]*$' "$scratch/tap"
}
# A kernel is looked for in one image after the other: what the driver answers to that is no error.
memcheck() { sanitizer memcheck --report-api-errors no; }
racecheck() { sanitizer racecheck; }
initcheck() { sanitizer initcheck; }

# All families and types of weights in small, real widths, weights that are re-encoded: lines of a model and options that its
# cloud needs too.
tokens="--tokens 24 --random-prompts"
[ -z "$emulated" ] || tokens="--tokens 2 --random-prompts"
verify_models() {
    if [ -n "$emulated" ]; then
        for name in ${REHEARSE_FAMILIES:-mistral-v01 qwen2}; do family "$name"; done
        return
    fi
    for model in test/models/families/*/; do family "$(basename "$model")"; done
    for model in test/models/tiny random:mistral-7b/4 random:nemo-12b/3 random:llama-3.1-8b/3 random:llama-3.2-1b/5 random:qwen2.5-0.5b/6 \
        random:qwen3-8b/3; do
        echo "$model"
    done
    for quant in q8 q4; do
        echo "test/models/tiny --quant $quant"
        [ -n "$quick" ] || echo "random:mistral-7b/4 --quant $quant"
    done
}
family() {
    if [ -e "test/models/families/$1/model.gguf" ]; then echo "test/models/families/$1/model.gguf"; else echo "test/models/families/$1"; fi
}

# In one process: every mode against sequential decoding, bit for bit, both on the card.
verify_itself() {
    needs_card || return 77
    n=0 bad=0
    verify_models >"$scratch/models"
    while read -r model rest; do
        n=$((n + 1))
        # shellcheck disable=SC2086 # options
        "$SPLITINF" verify --quiet --model $model --front 1 --back 1 --backend cuda --device "$device" $tokens $rest </dev/null ||
            { bad=$((bad + 1)); echo "$model $rest differs"; }
    done <"$scratch/models"
    said="$n models, $bad differ"
    goal "trees and chunkings bit-equal to token by token, on a card" equal "$said" [ $bad = 0 ]
    [ $bad = 0 ] && [ $n -gt 0 ]
}

# cloud OPTION...: a serve-cloud on the card for the client of $scratch/client; sets $at and $pin.
cloud() {
    : >"$scratch/ready"
    "$SPLITINF" serve-cloud --home "$scratch/cloud" --listen 127.0.0.1:0 --backend cuda --device "$device" \
        --allow "$("$SPLITINF" identity --home "$scratch/client")" "$@" >"$scratch/ready" 2>"$scratch/cloud.log" </dev/null &
    server=$!
    until grep -q ready "$scratch/ready"; do
        kill -0 "$server" 2>/dev/null || { cat "$scratch/cloud.log"; said="the cloud did not start: $(tail -n 1 "$scratch/cloud.log")"; server=; return 1; }
        sleep 0.1
    done
    at=$(sed 's/^ready \(.*\) pin .*/\1/' "$scratch/ready") pin=$(sed 's/.* pin //' "$scratch/ready")
}
cloud_end() {
    [ -z "$server" ] || { kill "$server"; wait "$server"; } 2>/dev/null
    server=
}

# A cloud on the card and a client on the CPU: logits have to be near, opened layers nearer.
beside_cpu() {
    needs_card || return 77
    n=0 bad=0 worst=0
    verify_models >"$scratch/models"
    echo "largest relative distance of logits from those of the CPU backend" >"$out/distances.txt"
    while read -r model rest; do
        n=$((n + 1))
        # shellcheck disable=SC2086 # options
        cloud --model $model --front 1 --back 1 --kv-mem 256M $rest || { bad=$((bad + 1)); continue; }
        verdict=
        # shellcheck disable=SC2086
        "$SPLITINF" verify --json --home "$scratch/client" --model $model --front 1 --back 1 --backend cpu --cloud "$at" --pin "$pin" \
            --audit 3 $tokens $rest >"$scratch/verify" </dev/null || { bad=$((bad + 1)); verdict=" TOO FAR"; echo "$model $rest is far off"; }
        cat "$scratch/verify"
        far=$(sed -n 's/.*"largest_distance":\([0-9.e-]*\).*/\1/p' "$scratch/verify")
        printf '  %-46s %s%s\n' "$model $rest" "${far:-none}" "$verdict" >>"$out/distances.txt"
        worst=$(awk -v a="$far" -v w="$worst" 'BEGIN { if (a + 0 > w) w = a; printf "%.1e", w }')
        cloud_end
    done <"$scratch/models"
    said="$n models, $bad too far from the CPU; logits at most $worst apart"
    goal "logits beside the CPU backend, all families and weight types, on a card" 2e-2 "$said" [ $bad = 0 ]
    [ $bad = 0 ] && [ $n -gt 0 ]
}

# Tests of what stands above the backends, run over a card.
server_tests() {
    (if [ -n "$emulated" ]; then unset SPLITINF_LIBCUDA SPLITINF_TEST_GPU; else export SPLITINF_TEST_GPU=1; fi
        export TEST_BACKEND=cuda
        "$build/unit" --ignore-warnings --timeout 1200 -j2 --filter "$server_suites" --tap="$scratch/tap")
    status=$?
    sed -i '/# SKIP test was skipped$/d' "$scratch/tap"
    cat "$scratch/tap"
    [ $status = 0 ] && grep -q '^ok [^#]*$' "$scratch/tap"
}
server_suites=${REHEARSE_SERVER:-@(batch|batch_load|split)/*}

# The server's tests with the card behind it: those whose clients compute the same or compare nothing with the CPU.
faults() {
    needs_card || return 77
    bad='' left='' n=0 checks=0
    if [ -x "$build/unit" ] && { [ -z "$emulated" ] || [ -n "$rehearse" ]; }; then
        server_tests || bad=" unit tests"
        checks=$(grep -c '^ok [^#]*$' "$scratch/tap")
    fi
    names=${REHEARSE_FAULTS:-serve_cloud split split_load split_wan}
    [ -z "$emulated" ] || [ -n "$rehearse" ] || names='split_load'
    for name in $names; do
        n=$((n + 1))
        mkdir -p "$scratch/$name/home"
        (export HOME="$scratch/$name/home" SCRATCH="$scratch/$name" SPLITINF_BACKEND=cuda
            [ "$device" = 0 ] || export SPLITINF_DEVICE="$device"
            if [ -x "test/e2e/$name.sh" ]; then exec "test/e2e/$name.sh"; else exec sh "test/e2e/$name.sh"; fi) >"$scratch/out" 2>&1 </dev/null
        status=$?
        cat "$scratch/out"
        checks=$((checks + $(grep -c '^ok' "$scratch/out")))
        if [ $status != 0 ] || grep -q '^not ok' "$scratch/out"; then
            bad="$bad $name"
        elif ! grep -q '^ok' "$scratch/out"; then
            if grep -q '^skip' "$scratch/out"; then left="$left $name"; else bad="$bad $name"; fi
        fi
    done
    said="$n scripts, $checks checks${bad:+, failed:$bad}${left:+, not possible here:$left}"
    goal "the server's fault scripts, on a card" pass "$said" [ -z "$bad" ]
    [ -z "$bad" ] && [ $checks -gt 0 ]
}
