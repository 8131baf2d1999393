# shellcheck shell=sh
# shellcheck disable=SC2034,SC2154 # variables of run.sh, which reads this
# Build, and find the card.

# For the cards that are here alone: minutes less.
build_all() {
    archs=
    if command -v nvidia-smi >/dev/null; then
        archs=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | sed -n '/^[0-9]*\.[0-9]*$/s/\.//p' | sort -u | tr '\n' ' ')
        nvidia-smi
    fi
    nvcc=$(command -v nvcc || ls /usr/local/cuda/bin/nvcc /usr/local/cuda-*/bin/nvcc 2>/dev/null | tail -n 1)
    for arch in $archs; do # one that nvcc does not know has the PTX
        [ -z "$nvcc" ] || "$nvcc" --list-gpu-code | grep -qx "sm_$arch" || archs=
    done
    [ -n "${BUILT:-}" ] || {
        vendor/build.sh || return 1
        if [ -n "$archs" ]; then set -- GPU_ARCHS="${archs% }"; else set --; fi
        make --no-print-directory -s -j"$jobs" BUILD="$build" "$@" all loads || return 1
        make --no-print-directory -s -j"$jobs" BUILD="$build" "$@" unit || echo "the unit tests cannot be built: ./build.sh packages test"
    }
    said=$("$SPLITINF" --version | sed -n 's/^backends: //p')
}

ask_for_card() {
    "$SPLITINF" chat --local --model test/models/tiny --raw --prompt x --max-tokens 1 --backend cuda --device "$device" "$@"
}
find_card() {
    card=$(ask_for_card --verbose 2>&1 >/dev/null | sed -n 's/^splitinf chat: computing on //p')
    if [ -n "$card" ]; then
        said=$card
    else
        why=$(ask_for_card 2>&1 | sed 's/^splitinf chat: --backend cuda: //;s/^splitinf chat: //;q')
        skip "$why"
    fi
}
card='' why='it was not looked for'
