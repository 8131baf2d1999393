#!/bin/sh
# splitinf verify, which goes through every mode, greedy and drawn, over all models in test/models and (where ../shared has
# it) stories260K: at RTT 0, at RTT 80 with random delays, and padded. Two lines per run; status 1 when anything differed.
# Needs ./build.sh; takes about ten minutes, most of them asleep.
#
#   test/bench/verify_all.sh [MODEL...]      TOKENS=48 FAR_TOKENS=16 JOBS=4
set -eu
cd "$(dirname -- "$0")/../.."
BUILD=${BUILD:-build} near=${TOKENS:-48} far=${FAR_TOKENS:-16} jobs=${JOBS:-4}
trap 'exit 130' INT TERM

# --one MODEL OPTION...: what verify said last, or what differed and why.
if [ "${1:-}" = --one ]; then
    model=$2
    shift 2
    status=0
    text=$("$BUILD/splitinf" verify --quiet --model "$model" "$@" 2>&1) || status=1
    case $status in 0) text=${text##*
} ;; *) text=$(printf '%s\n' "$text" | grep -v 'equal$') ;; esac
    printf '%s  %s\n    %s\n' "$model" "$*" "$text"
    exit $status
fi

make --no-print-directory -s "$BUILD/splitinf"
if [ $# = 0 ]; then
    for model in test/models/tiny test/models/families/*/ "${TEST_SHARED:-../shared}/data/models/stories260K"; do
        [ ! -e "$model/model.gguf" ] || model=${model}model.gguf
        [ ! -e "$model" ] || set -- "$@" "$model"
    done
fi
for model; do
    edges="--front 1 --back 1"
    [ -e "$model/tokenizer.json" ] || [ -e "$model/tokenizer.model" ] || edges="$edges --random-prompts"
    echo "$model $edges --tokens $near"
    echo "$model $edges --tokens $far --link-rtt 80 --link-jitter 20"
    echo "$model $edges --tokens $far --link-rtt 20 --link-jitter 10 --pad 12:40"
done | xargs -P "$jobs" -L 1 test/bench/verify_all.sh --one
