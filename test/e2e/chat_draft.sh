#!/bin/sh
# shellcheck disable=SC2086 # several words
# chat --draft: a small model on this side guesses, with the large one's tokenizer or another one; the text is the same and the
# round trips are fewer.
. test/lib.sh
out=$SCRATCH/out err=$SCRATCH/err model=test/models/tiny home=$SCRATCH/client
server=
trap '[ -z "$server" ] || kill -9 "$server" 2>/dev/null' EXIT
pin=$("$SPLITINF" identity --home "$home")
prompt="Tell me a story about a fox."

serve $model "$pin" --kv-mem 16M

chat() { "$SPLITINF" chat --model $model --home "$home" --cloud "$at" --pin "$cloud" --no-store --max-tokens 40 "$@" >"$out" 2>"$err" </dev/null; }
# answer OPTION...: its text goes to $words, its steps to $steps.
answer() {
    chat --prompt "$prompt" --json "$@" || { cat "$err" >&2; return 1; }
    steps=$(sed 's/.*"steps":\([0-9]*\).*/\1/' "$out")
    words=$(sed 's/,"tokens":.*//' "$out")
}
mid="--mode stop-and-wait --link-rtt 15"
# fewer MODEL STEPS: with it the answer is the same in fewer than so many steps, where a round trip is long beside a pass of it. On
# a machine that is slow, or busy with other things, that takes a longer one.
fewer() {
    for rtt in 80 320 1200; do
        answer --mode stop-and-wait --link-rtt $rtt --draft "$1" && [ "$words" = "$said" ] || return 1
        [ "$steps" -ge "$2" ] || return 0
        echo "$steps steps, not less than $2, at $rtt ms" >&2
    done
    return 1
}

plain() { answer --mode stop-and-wait && first=$steps said=$words; }
check "an answer without it" plain
itself() { fewer $model $((first * 3 / 4)); }
check "a model that guesses for itself takes fewer round trips" itself
rolling() { answer --link-rtt 40 --draft $model && [ "$words" = "$said" ]; }
check "and says the same in --mode auto" rolling
near() { answer --draft $model && [ "$words" = "$said" ]; }
check "and where there is nothing to gain" near
padded() { answer --draft $model --pad 8 && [ "$words" = "$said" ]; }
check "and in padded windows" padded
drawn() {
    answer --mode stop-and-wait --temperature 0.9 --top-p 0.95 --seed 4 && drawn_words=$words &&
        answer $mid --temperature 0.9 --top-p 0.95 --seed 4 --draft $model && [ "$words" = "$drawn_words" ]
}
check "and when it is drawn" drawn
if [ -d test/models/tiny-draft ]; then
    small() { fewer test/models/tiny-draft "$first"; }
    check "a smaller model with the same tokenizer" small
fi
statistics() { chat --prompt "$prompt" --stats $mid --draft $model && has "$err" "draft    " "passes in " "same tokenizer"; }
check "--stats tells what it did" statistics

other=
for dir in test/models/stories260K ../shared/data/models/stories260K; do
    [ -n "$other" ] || [ ! -f "$dir/model.safetensors" ] || other=$dir
done
if [ -n "$other" ]; then
    by_text() { answer $mid --draft "$other" && [ "$words" = "$said" ] && chat --prompt "$prompt" --stats $mid --draft "$other" && has "$err" "by text"; }
    check "a model with another tokenizer" by_text
else
    echo "skip a model with another tokenizer: stories260K is neither in test/models nor in ../shared/data/models"
fi

conversation() { # two turns: what was computed for the first serves the second
    rm -f "$SCRATCH/said.json"
    printf 'expect > \ntype %s\nexpect cut at max-tokens\nexpect > \ntype And then?\nexpect > \ntype /save %s\nexpect saved to\ntype /quit\n' \
        "$prompt" "$SCRATCH/said.json" >"$SCRATCH/script"
    TERM=xterm "$SCRATCH/pty_run" 60 "$SPLITINF" chat --model $model --home "$home" --history off --no-store --max-tokens 30 \
        --cloud "$at" --pin "$cloud" "$@" >"$out" 2>&1 <"$SCRATCH/script" || { cat "$out" >&2; return 1; }
}
two_turns() {
    ${CC:-cc} -std=c11 -D_GNU_SOURCE -O1 -o "$SCRATCH/pty_run" test/tools/pty_run.c -lutil 2>/dev/null || return 1
    conversation && cp "$SCRATCH/said.json" "$SCRATCH/before" && conversation --link-rtt 15 --draft $model &&
        cmp "$SCRATCH/said.json" "$SCRATCH/before"
}
check "a conversation" two_turns

refused() { # STATUS TEXT OPTION...
    want=$1 why=$2
    shift 2
    chat --prompt x "$@"
    status=$?
    [ $status = "$want" ] && [ ! -s "$out" ] && has "$err" "$why"
}
check "a model that is not there" refused 1 "$SCRATCH/nothing" --draft "$SCRATCH/nothing"
check "a model without a tokenizer" refused 2 "tokenizer" --draft random:llama-3.2-1b/1
check "a mode in which nothing is drafted" refused 2 "--mode sequential" --mode sequential --draft $model
needs_memory() { refused 1 "needs " --memory 9M --draft $model && chat --prompt x --memory 9M; }
check "its memory is counted" needs_memory
no_cloud() {
    "$SPLITINF" chat --local --model $model --prompt x --draft $model >"$out" 2>"$err" </dev/null
    [ $? = 2 ] && has "$err" "--local"
}
check "without a cloud there is nothing to save" no_cloud
