#!/bin/sh
# Every mode says what the model alone says, near and far, padded or not. A selection: test/bench/verify_all.sh has the rest.
. test/lib.sh
out=$SCRATCH/out err=$SCRATCH/err
echo "Once upon a time there was a fox who had a hat. The fox had a hat and the hat had a" >"$SCRATCH/text"

equal() { # ANSWERS OPTION...
    n=$1
    shift
    "$SPLITINF" verify "$@" >"$out" 2>"$err" || { cat "$out" "$err" >&2; return 1; }
    has "$out" "all $n answers of the split (codec f16) equal" " sequential " " stop-and-wait " " auto " " jacobi " " lookahead "
}
tiny() { equal 10 --model test/models/tiny --prompts "$SCRATCH/text" "$@"; }
for family in llama32 mistral-v01 nemo qwen2-swa qwen3 gguf-k/model.gguf; do
    check "every mode on $family" equal 20 --model "test/models/families/$family" --front 1 --back 1 --random-prompts --tokens 24
done
check "every mode at 80 ms with delays by chance" tiny --tokens 7 --link-rtt 80 --link-jitter 20
check "padded to a tick of its own" tiny --tokens 10 --pad 12
check "padded to a tick that is too short for the way" tiny --tokens 10 --pad 8:15 --link-rtt 40 --link-jitter 5
check "a block of one, and the longest n-grams" tiny --tokens 10 --block 1 --ngram 16 --window 4 --candidates 8
check "the candidates of the text alone" tiny --tokens 20 --block 60 --ngram 3 --window 0 --candidates 5

logged() {
    equal 10 --model test/models/tiny --prompts "$SCRATCH/text" --tokens 30 --draft-log "$SCRATCH/log" || return 1
    [ "$(stat -c %a "$SCRATCH/log")" = 600 ] && [ "$(head -n 1 "$SCRATCH/log")" = source,depth,p,path_p,fate,sent_ms,came_ms,over_ms ] &&
        has "$SCRATCH/log" suffix, ngram, recycle, pool, ,accepted, ,rejected, ,cancelled, || return 1
    sed 1d "$SCRATCH/log" | grep -Evq '^[a-z]+,[0-9]+(,[01]\.[0-9]+){2},[a-z]+,[0-9.]+,[0-9.]*,[0-9.]+$' || return 0
    echo "the log of guesses has more than numbers" >&2
    return 1
}
check "--draft-log tells what became of guesses, in numbers, to its owner alone" logged
draft_log_nowhere() { refused_with 1 "cannot write $SCRATCH/none/log" --draft-log "$SCRATCH/none/log"; }

refused_with() { # STATUS TEXT OPTION...
    status=$1 text=$2
    shift 2
    "$SPLITINF" verify --model test/models/tiny "$@" >"$out" 2>"$err"
    [ $? = "$status" ] && [ ! -s "$out" ] && has "$err" "$text"
}
refused() { refused_with 2 "$@"; }
check "a log that cannot be written is an error" draft_log_nowhere
check "a grid that is too large is refused" refused "lookahead with 225 guesses" --ngram 16 --window 8
check "no window and no candidates are refused" refused "without a window at least one" --window 0 --candidates 0
check "--pad without a number is refused" refused "--pad rows: rows of a window" --pad rows
check "--pad with too many rows is refused" refused "rows of a window, 1 to 32" --pad 33
check "--pad with half a tick is refused" refused "after a colon" --pad 8:
local_pad() {
    "$SPLITINF" chat --local --model test/models/tiny --pad 8 --prompt hi >"$out" 2>"$err" </dev/null
    [ $? = 2 ] && [ ! -s "$out" ] && has "$err" "--pad goes with --cloud"
}
check "--pad without a cloud is refused" local_pad
