#!/bin/sh
# shellcheck disable=SC2154 # serve sets them
# What chat learns: a second conversation of the kind needs fewer round trips and says the same; nothing is learned where that
# was not wanted; what was learned is private and can be deleted; a store that fails costs a warning.
. test/lib.sh
out=$SCRATCH/out err=$SCRATCH/err model=test/models/tiny home=$SCRATCH/client
server=
trap '[ -z "$server" ] || kill -9 "$server" 2>/dev/null' EXIT
pin=$("$SPLITINF" identity --home "$home")
prompt="Tell me a story about a fox."

serve $model "$pin" --kv-mem 16M

# split OPTION...: an answer; its text goes to $words, its steps to $steps.
split() {
    "$SPLITINF" chat --model $model --home "$home" --cloud "$at" --pin "$cloud" --prompt "$prompt" --mode stop-and-wait \
        --max-tokens 60 --json "$@" >"$out" 2>"$err" </dev/null || { cat "$err" >&2; return 1; }
    steps=$(sed 's/.*"steps":\([0-9]*\).*/\1/' "$out")
    words=$(sed 's/,"tokens":.*//' "$out")
}
stores() { find "$1" -name 'drafts-*'; }

unused() {
    split --no-store && [ -z "$(stores "$home")" ] && has "$out" '"store_tokens":null'
}
check "--no-store keeps nothing" unused
first=$steps said=$words
local_chat() {
    "$SPLITINF" chat --local --model $model --home "$home" --prompt "$prompt" --max-tokens 5 --quiet >"$out" </dev/null && [ -s "$out" ] &&
        [ -z "$(stores "$home")" ]
}
check "a conversation on this machine is not learned" local_chat
verify_learns_nothing() {
    "$SPLITINF" verify --model $model --home "$home" --cloud "$at" --pin "$cloud" --tokens 4 >"$out" 2>"$err" && [ -z "$(stores "$home")" ]
}
check "nor what verify says" verify_learns_nothing
learns() {
    split && [ "$words" = "$said" ] && [ "$(stores "$home" | wc -l)" = 3 ] && ! grep -q '"store_tokens":0' "$out" &&
        split && [ "$words" = "$said" ] && [ "$steps" -lt "$first" ] && [ ! -s "$err" ] || { echo "$first steps, then $steps" >&2; return 1; }
}
check "the second answer takes fewer round trips and is the same" learns
taught=$steps # which results are there when more than one window is on its way is up to the clock, so steps vary a little
not_used() { split --no-store && [ "$steps" -gt "$taught" ] && [ "$words" = "$said" ]; }
check "--no-store does without it" not_used
private() { [ -z "$(find "$home" -name 'drafts-*' ! -perm 600)" ]; }
check "its files are for the user alone" private
statistics() { split --stats && has "$err" "guesses " "store    " "tokens learned"; }
check "--stats tells how much was learned" statistics
damaged() {
    for file in $(stores "$home"); do echo "no store" >"$file"; done
    split && [ "$words" = "$said" ] && has "$err" "is damaged" && split && [ "$words" = "$said" ] && [ "$steps" -lt "$first" ] && [ ! -s "$err" ]
}
check "a damaged store is made again with a warning" damaged
forgotten() {
    "$SPLITINF" chat --forget --home "$home" >"$out" 2>"$err" && [ ! -s "$out" ] && has "$err" "$home: 1 store, " && [ -z "$(stores "$home")" ] &&
        "$SPLITINF" chat --forget --home "$home" 2>"$err" && has "$err" "nothing was learned" &&
        [ "$("$SPLITINF" chat --forget --home "$home" --json)" = '{"stores":0,"bytes":0}' ]
}
check "--forget deletes it and needs no model" forgotten
primed() {
    split --no-store && sed 's/^{"text":"\(.*\)","tokens":.*/\1/; s/\\"/"/g' "$out" | awk '{ gsub(/\\n/, "\n"); print }' >"$SCRATCH/text" &&
        "$SPLITINF" chat --model $model --home "$home" --prime "$SCRATCH/text" --prime "$SCRATCH/text" >"$out" 2>"$err" </dev/null &&
        [ ! -s "$out" ] && has "$err" "tokens learned from $SCRATCH/text" && split && [ "$words" = "$said" ] && [ "$steps" -lt "$first" ] ||
        { echo "$first steps, then $steps" >&2; cat "$err" >&2; return 1; }
}
check "--prime teaches a text" primed
no_text() {
    printf 'abc\0def' >"$SCRATCH/binary"
    "$SPLITINF" chat --model $model --home "$home" --prime "$SCRATCH/binary" 2>"$err" </dev/null
    [ $? = 2 ] && has "$err" "is no UTF-8 text: byte 3"
}
check "--prime with something else than text" no_text
prime_json() {
    "$SPLITINF" chat --model $model --home "$SCRATCH/primed" --prime "$SCRATCH/text" --json >"$out" 2>"$err" </dev/null &&
        [ "$(sed 's/^{"learned_tokens":\([0-9]*\),"store_tokens":\([0-9]*\)}$/\1 \2/' "$out" | awk '{ print ($1 > 20 && $1 == $2) }')" = 1 ]
}
check "--prime --json" prime_json
contradiction() {
    "$SPLITINF" chat --model $model --home "$home" --prime "$SCRATCH/text" --no-store 2>"$err" </dev/null
    [ $? = 2 ] && has "$err" "--no-store"
}
check "--prime without a store is refused" contradiction

unusable() { # what stands in the store's way does not stand in the conversation's
    "$SPLITINF" chat --forget --home "$home" --quiet && split && lock=$(stores "$home" | grep lock) && rm "$lock" && mkdir "$lock" &&
        split && [ "$words" = "$said" ] && has "$err" "warning: " "$lock" && [ "$(wc -l <"$err")" = 1 ]
    rc=$?
    rmdir "$lock"
    return $rc
}
check "a store that cannot be used is a warning" unusable
at_once() {
    split && before=$(sed 's/.*"store_tokens":\([0-9]*\).*/\1/' "$out") || return 1
    clients=
    for i in 1 2 3; do
        "$SPLITINF" chat --model $model --home "$home" --cloud "$at" --pin "$cloud" --prompt "$prompt" --max-tokens 60 --json \
            >"$SCRATCH/out$i" 2>"$SCRATCH/err$i" </dev/null &
        clients="$clients $!"
    done
    for client in $clients; do wait "$client" || return 1; done
    cat "$SCRATCH"/err[123] >&2
    for i in 1 2 3; do [ "$(sed 's/,"tokens":.*//' "$SCRATCH/out$i")" = "$said" ] && [ ! -s "$SCRATCH/err$i" ] || return 1; done
    split && after=$(sed 's/.*"store_tokens":\([0-9]*\).*/\1/' "$out") && [ $((after - before)) -gt 200 ]
}
check "conversations at the same time share it" at_once
