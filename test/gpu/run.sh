#!/bin/sh
# Everything that a machine with an NVIDIA card can show, in one go: build, check, measure, one table. Each step is a line
# "PASS|FAIL|SKIP NAME (SECONDS s) DETAIL"; a step that needs what is not there is skipped with the reason, so it runs to its
# end on any machine. Exit status 1 when a step failed. Written to OUT (default gpu-report): what each step printed, the
# measurements, and report.md, which --record puts into docs/performance.md.
#
#   test/gpu/run.sh [--out OUT] [--device N] [--only STEP,...] [--replay FILE [--prime FILE]] [--record] [--quick]
#
# --quick: fewer models, shorter measurements. SPLITINF_LIBCUDA=LIBRARY checks with an emulated card (build/libcuda-emu.so) in
# place of a real one; nothing is measured then.
set -u
cd "$(dirname -- "$0")/../.." || exit 2
export LC_ALL=C.UTF-8
out=gpu-report device=0 only='' replay='' prime='' record='' quick=
while [ $# -gt 0 ]; do
    case $1 in
    --out | --device | --only | --replay | --prime)
        [ $# -gt 1 ] || { echo "test/gpu/run.sh: $1 needs a value" >&2; exit 2; }
        case $1 in
        --out) out=$2 ;; --device) device=$2 ;; --only) only=$2 ;; --replay) replay=$2 ;; --prime) prime=$2 ;;
        esac
        shift 2
        ;;
    --record) record=1; shift ;;
    --quick) quick=1; shift ;;
    *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done
build=${BUILD:-build} jobs=$(nproc 2>/dev/null || echo 2)
case $build in /*) ;; *) build=$PWD/$build ;; esac
mkdir -p "$out" && out=$(CDPATH='' cd -- "$out" && pwd) || exit 2
scratch=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM
export SPLITINF="$build/splitinf" BUILD="$build" HOME="$scratch/home"
mkdir "$HOME"
: >"$out/table"
n_failed=0
emulated=${SPLITINF_LIBCUDA:+1}
[ -z "$emulated" ] || jobs=1

# step NAME FUNCTION: status 77 is a skip. What a step wants to say stands in $said.
step() {
    case ",${only:-$1}," in *",$1,"*) ;; *) return 0 ;; esac
    since=$(date +%s) said=
    "$2" >"$out/$1.log" 2>&1
    case $? in 0) what=PASS ;; 77) what=SKIP ;; *) what=FAIL n_failed=$((n_failed + 1)) ;; esac
    printf '%s %-14s (%d s) %s\n' $what "$1" $(($(date +%s) - since)) "$said" | tee -a "$out/table"
    [ $what != FAIL ] || tail -n 15 "$out/$1.log" | sed 's/^/    /'
}
skip() { said=$*; return 77; }
needs_card() { [ -n "$card" ] || { said="no card: $why"; return 1; }; }
needs_real() { needs_card && { [ -z "$emulated" ] || { said="not on an emulated card"; return 1; }; }; }

# --- Build and find -----------------------------------------------------------------------------------------------------

# For the card that is here alone: minutes less.
build_all() {
    arch=
    command -v nvidia-smi >/dev/null && arch=$(nvidia-smi -i "$device" --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | sed -n '/^[0-9]*\.[0-9]*$/s/\.//p')
    [ -n "${BUILT:-}" ] || {
        vendor/build.sh
        # shellcheck disable=SC2086 # one word or none
        make --no-print-directory -s -j"$jobs" BUILD="$build" ${arch:+GPU_ARCHS=$arch} all unit loads || return 1
    }
    said=$("$SPLITINF" --version | sed -n 's/^backends: //p')
}

find_card() {
    card=$("$SPLITINF" chat --local --model test/models/tiny --raw --prompt x --max-tokens 1 --backend cuda --device "$device" \
        --verbose 2>&1 >/dev/null | sed -n 's/^splitinf chat: computing on //p')
    if [ -n "$card" ]; then
        said=$card
    else
        why=$("$SPLITINF" chat --local --model test/models/tiny --raw --prompt x --max-tokens 1 --backend cuda --device "$device" 2>&1 |
            sed 's/^splitinf chat: --backend cuda: //;s/^splitinf chat: //;q')
        skip "$why"
    fi
}
card='' why='it was not looked for'

# --- Checks -------------------------------------------------------------------------------------------------------------

gpu_suites='gpu*/*'
unit_tests() {
    needs_card || return 77
    [ -x "$build/unit" ] || skip "there is no $build/unit" || return
    if [ -n "$emulated" ]; then unset SPLITINF_TEST_GPU; else export SPLITINF_TEST_GPU=1; fi
    at_once=$((jobs < 8 ? jobs : 8)) # each has a context of its own, half a gigabyte of the card
    (unset SPLITINF_LIBCUDA; "$build/unit" --ignore-warnings --timeout 1200 -j"$at_once" --filter "$gpu_suites" --tap="$scratch/tap")
    status=$?
    cat "$scratch/tap"
    said="$(grep -c '^ok' "$scratch/tap") passed, $(grep -c '^not ok' "$scratch/tap") failed, $(grep -c '# SKIP' "$scratch/tap") skipped"
    [ $status = 0 ] && grep -q '^ok' "$scratch/tap"
}

sanitizer() { # TOOL
    needs_real || return 77
    tool=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | head -n 1)
    [ -n "$tool" ] || skip "there is no compute-sanitizer" || return
    SPLITINF_TEST_GPU=1 "$tool" --tool "$1" --target-processes all --error-exitcode 9 "$build/unit" --ignore-warnings \
        --timeout 3600 -j1 --filter "$gpu_suites"
}
memcheck() { sanitizer memcheck; }
racecheck() { sanitizer racecheck; }
initcheck() { sanitizer initcheck; }

# All families and types of weights in small, real widths, weights that are re-encoded: lines of a model and options that its
# cloud needs too.
tokens="--tokens 24 --random-prompts"
[ -z "$emulated" ] || tokens="--tokens 2 --random-prompts"
verify_models() {
    [ -z "$emulated" ] || { echo test/models/families/mistral-v01; echo test/models/families/qwen2; return; }
    for model in test/models/families/*/; do
        [ ! -e "$model/model.gguf" ] || model=${model}model.gguf
        echo "$model"
    done
    for model in test/models/tiny random:mistral-7b/4 random:nemo-12b/3 random:llama-3.1-8b/3 random:llama-3.2-1b/5 random:qwen2.5-0.5b/6 \
        random:qwen3-8b/3; do
        echo "$model"
    done
    [ -n "$quick" ] || for quant in q8 q4; do echo "random:mistral-7b/4 --quant $quant"; done
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
    [ $bad = 0 ] && [ $n -gt 0 ]
}

# cloud OPTION...: a serve-cloud on the card for the client of $scratch/client; sets $at and $pin.
cloud() {
    : >"$scratch/ready"
    "$SPLITINF" serve-cloud --home "$scratch/cloud" --listen 127.0.0.1:0 --backend cuda --device "$device" \
        --allow "$("$SPLITINF" identity --home "$scratch/client")" "$@" >"$scratch/ready" 2>"$scratch/cloud.log" </dev/null &
    server=$!
    until grep -q ready "$scratch/ready"; do
        kill -0 "$server" 2>/dev/null || { cat "$scratch/cloud.log"; server=; return 1; }
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
    while read -r model rest; do
        n=$((n + 1))
        # shellcheck disable=SC2086 # options
        cloud --model $model --front 1 --back 1 --kv-mem 256M $rest || { bad=$((bad + 1)); continue; }
        # shellcheck disable=SC2086
        "$SPLITINF" verify --json --home "$scratch/client" --model $model --front 1 --back 1 --backend cpu --cloud "$at" --pin "$pin" \
            --audit 3 $tokens $rest >"$scratch/verify" </dev/null || { bad=$((bad + 1)); echo "$model $rest is far off"; }
        cat "$scratch/verify"
        worst=$(sed -n 's/.*"largest_distance":\([0-9.e-]*\).*/\1/p' "$scratch/verify" | awk -v w="$worst" '{ if ($1 + 0 > w) w = $1 } END { printf "%.1e", w }')
        cloud_end
    done <"$scratch/models"
    said="$n models, $bad too far from the CPU; logits at most $worst apart"
    [ $bad = 0 ] && [ $n -gt 0 ]
}

# The server's tests with the card behind it: those whose clients compute the same or compare nothing with the CPU.
faults() {
    needs_card || return 77
    bad='' n=0
    names='serve_cloud split split_load'
    [ -z "$emulated" ] || names='split_load'
    for name in $names; do
        n=$((n + 1))
        mkdir -p "$scratch/$name/home"
        (export HOME="$scratch/$name/home" SCRATCH="$scratch/$name" SPLITINF_BACKEND=cuda
            [ "$device" = 0 ] || export SPLITINF_DEVICE="$device"
            if [ -x "test/e2e/$name.sh" ]; then exec "test/e2e/$name.sh"; else exec sh "test/e2e/$name.sh"; fi) >"$scratch/out" 2>&1 </dev/null
        status=$?
        cat "$scratch/out"
        if [ $status != 0 ] || grep -q '^not ok' "$scratch/out" || ! grep -q '^ok' "$scratch/out"; then bad="$bad $name"; fi
    done
    said="$n scripts${bad:+, failed:$bad}"
    [ -z "$bad" ]
}

# --- Measurements -------------------------------------------------------------------------------------------------------

kernels() {
    needs_real || return 77
    rows=1,4,8,16,32,64,512,2048,8192
    [ -z "$quick" ] || rows=1,8,64,512
    for math in full fast; do
        "$SPLITINF" bench --kernels --backend cuda --device "$device" --math $math --pass-rows $rows >"$out/kernels-$math.txt" || return 1
        cat "$out/kernels-$math.txt"
    done
    cat "$out/kernels-full.txt" "$out/kernels-fast.txt" >"$out/kernels.txt"
    said=$(sed -n 's/^limits: //p' "$out/kernels-full.txt")
}

versus_torch() {
    needs_real || return 77
    python=${PYTHON:-python3}
    "$python" -c 'import torch, transformers; assert torch.cuda.is_available()' 2>"$scratch/torch" ||
        skip "$python has no torch with CUDA, or no transformers: $(tail -n 1 "$scratch/torch")" || return
    "$python" test/gpu/versus_torch.py --device "$device" ${quick:+--quick} >"$out/torch.txt" && cat "$out/torch.txt"
}

# A split model at 80 ms, the edges on the CPU and on the card: what a step costs beside the round trip and the model.
split_80ms() {
    needs_real || return 77
    model=random:mistral-7b/8
    [ -n "$replay" ] || skip "no recorded answers: --replay FILE" || return
    tokenizer=${TOKENIZER:-}
    [ -n "$tokenizer" ] || skip "recorded answers need their tokenizer: TOKENIZER=FILE|DIR" || return
    cloud --model $model --kv-mem 8G || return 1
    for edges in cpu cuda; do
        # shellcheck disable=SC2086 # words or none
        "$SPLITINF" bench --home "$scratch/client" --model $model --backend $edges --cloud "$at" --pin "$pin" --replay "$replay" ${prime:+--prime "$prime"} \
            --tokenizer "$tokenizer" --mode sequential,auto --rtt 80 --mbit 100 --tokens 128 --answers 8 --json >"$out/split-$edges.json" || { cloud_end; return 1; }
        cat "$out/split-$edges.json"
        said="$said $edges:$(grep -o '"mode":"auto"[^}]*' "$out/split-$edges.json" | tail -n 1 |
            sed 's/.*"tok_s":\([0-9.a-z]*\).*"overhead_ms":\([0-9.a-z]*\).*/ \1 tok\/s, overhead \2 ms;/')"
    done
    cloud_end
}

# 64 sessions at once, killed clients among them, every text compared.
sessions() {
    needs_real || return 77
    seconds=60
    [ -z "$quick" ] || seconds=20
    SPLITINF_BACKEND=cuda BUILT=1 test/bench/split_load.sh 64 $seconds 0 >"$scratch/out" 2>&1
    status=$?
    cat "$scratch/out"
    said=$(sed -n 's/^\(64 sessions, [^;]*\);.*/\1/p' "$scratch/out")
    return $status
}

# --- All of it ----------------------------------------------------------------------------------------------------------

report() {
    echo "Card: ${card:-none}. Date: $(date -u +%Y-%m-%d). Commit: $(git describe --always --dirty --abbrev=12 --exclude '*' 2>/dev/null || echo unknown)."
    echo
    echo '| step | result | |'
    echo '|---|---|---|'
    sed 's/^\([A-Z]*\) \([a-z0-9_-]*\) *(\([0-9]* s\)) *\(.*\)/| \2 | \1, \3 | \4 |/' "$out/table"
    for file in kernels.txt torch.txt; do
        [ ! -s "$out/$file" ] || { echo; echo '```'; cat "$out/$file"; echo '```'; }
    done
}

step build build_all
[ -x "$SPLITINF" ] || { echo "there is no $SPLITINF: nothing can be done" >&2; exit 1; }
step card find_card
[ -n "$card" ] || [ -z "$only" ] || find_card >/dev/null
step unit unit_tests
step memcheck memcheck
step racecheck racecheck
step initcheck initcheck
step verify verify_itself
step beside-cpu beside_cpu
step faults faults
step kernels kernels
step torch versus_torch
step split-80ms split_80ms
step sessions sessions
report >"$out/report.md"
if [ -n "$record" ] && [ -n "$card" ] && [ -z "$emulated" ]; then
    awk -v file="$out/report.md" '/<!-- measured: begin -->/ { print; while ((getline line < file) > 0) print line; cut = 1; next }
        /<!-- measured: end -->/ { cut = 0 } !cut' docs/performance.md >"$scratch/new" && cp "$scratch/new" docs/performance.md
fi
echo "$(grep -c ^PASS "$out/table") passed, $n_failed failed, $(grep -c ^SKIP "$out/table") skipped; $out/report.md"
[ $n_failed = 0 ]
