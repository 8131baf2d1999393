#!/bin/sh
# bench: the two command lines that scripts rely on, and what else it promises: every answer compared, reports, recorded
# answers, a real cloud, Ctrl-C, and that it leaves the user's own store alone.
. test/lib.sh
out=$SCRATCH/out err=$SCRATCH/err rows=$SCRATCH/rows model=test/models/tiny home=$SCRATCH/home
cloud=
trap '[ -z "$cloud" ] || kill -9 "$cloud" 2>/dev/null' EXIT

# bench STATUS OPTION...: its output in $out, the rows of its JSON one by one in $rows.
bench() {
    want=$1
    shift
    timeout 300 "$SPLITINF" bench "$@" >"$out" 2>"$err" </dev/null
    status=$?
    [ $status = "$want" ] || { echo "status $status, not $want" >&2; cat "$err" >&2; return 1; }
    sed 's/.*"rows":\[//; s/\].*//; s/},{/}\n{/g' "$out" >"$rows"
}
# rows_are N: so many, each with every field; what is counted agrees with itself.
rows_are() {
    awk -v want="$1" -v fields="mode source nodes rtt_ms mbit codec category tokens steps tokens_per_round_trip tok_s predicted_tok_s miss_rate overhead_ms bytes_up bytes_down" '
        function value(name) { if (!match($0, "\"" name "\":[^,}]*")) return "missing"; return substr($0, RSTART + length(name) + 3, RLENGTH - length(name) - 3) }
        function near(a, b) { return a - b < 1e-6 && b - a < 1e-6 }
        { n = split(fields, f, " ")
          for (i = 1; i <= n; i++) if (value(f[i]) == "missing") { print "no " f[i] " in " $0; bad = 1 }
          tokens = value("tokens") + 0; steps = value("steps") + 0
          if (!(tokens > 0 && steps > 0 && steps <= tokens && near(value("tokens_per_round_trip"), tokens / steps) && near(value("miss_rate"), steps / tokens))) { print "counts of " $0; bad = 1 } }
        END { if (NR != want) { print NR " rows, not " want; bad = 1 } exit bad }' "$rows" >&2 || { cut -c 1-2000 "$out" >&2; return 1; }
}
# row TEXT...: some row holds all of these.
row() {
    cp "$rows" "$SCRATCH/left"
    for text; do
        grep -F -e "$text" "$SCRATCH/left" >"$SCRATCH/some" || { echo "no row with: $*" >&2; cat "$rows" >&2; return 1; }
        mv "$SCRATCH/some" "$SCRATCH/left"
    done
}

# Recorded answers. The second prompt is in both files; only the others may teach the store about it.
cat >"$SCRATCH/answers.jsonl" <<'END'
{"id": "1", "prompt": "Name three colours.", "output": "Red, green and blue. Red, green and blue are three colours."}
{"id": "2", "prompt": "Tell me about foxes.", "output": "A fox is an animal. A fox lives in the forest, and a fox eats mice."}
END
cat >"$SCRATCH/others.jsonl" <<'END'
{"id": "2", "prompt": "Tell me about foxes.", "output": "A fox is red."}
{"id": "3", "prompt": "What is green?", "output": "The forest is green. A fox lives in the forest."}
END
echo "Once upon a time there was a fox who" >"$SCRATCH/one"

dry() {
    bench 0 --dry --replay "$SCRATCH/answers.jsonl" --tokenizer $model --prime "$SCRATCH/others.jsonl" --nodes 4,8 --json && rows_are 15 &&
        has "$out" '{"machine":{' && for n in 3 4 5 6 7; do row '"mode":"reference"' "\"source\":\"n=$n\"" || return 1; done &&
        for source in suffix ngram suffix+ngram store all; do row "\"source\":\"$source\"" '"nodes":8' '"tok_s":null' || return 1; done
}
check "--dry --replay --tokenizer --prime --nodes --json" dry
dry_alone() {
    bench 0 --dry --replay "$SCRATCH/answers.jsonl" --tokenizer $model --json --out "$SCRATCH/dry" && rows_are 20 &&
        ! grep -q '"source":"store"' "$rows" && [ -s "$SCRATCH/dry/ngrams.svg" ] && [ -s "$SCRATCH/dry/nodes.svg" ] && [ -s "$SCRATCH/dry/report.html" ]
}
check "--dry without a store, with a report" dry_alone

split() {
    bench 0 --model $model --mode sequential,auto --rtt 0,80 --mbit 100 --tokens 1 --json && rows_are 20 &&
        for category in code structured creative conversational; do
            row '"mode":"sequential"' '"rtt_ms":0,' "\"category\":\"$category\"" && row '"mode":"auto"' '"rtt_ms":80' "\"category\":\"$category\"" || return 1
        done && row '"mode":"auto"' '"category":null' '"tokens":8' '"codec":"f16"' '"mbit":100' &&
        has "$out" '"model":"'$model'"' '"hidden":192' '"cloud":null'
}
check "--model --mode --rtt --mbit --tokens --json" split

modes=sequential,auto,stop-and-wait,jacobi,lookahead
all_modes() {
    bench 0 --model $model --prompts "$SCRATCH/one" --mode $modes --rtt 4,10 --codec f16,q8 --tokens 4 --out "$SCRATCH/report/" --home "$home" --json &&
        rows_are 20 && has "$out" '"fits":[{"mode":"sequential"' '"cross_validation_error":0' '"projection":[{"rtt_ms":5' '"drafts":[{' || return 1
    for file in results.json results.csv throughput.svg latency.svg ngrams.svg report.html; do
        [ -s "$SCRATCH/report/$file" ] || { echo "no $file" >&2; return 1; }
    done
    cmp "$out" "$SCRATCH/report/results.json" && [ "$(wc -l <"$SCRATCH/report/results.csv")" = 21 ] && has "$SCRATCH/report/report.html" '<svg' '</html>'
}
check "every mode gives the answer of sequential; --out makes all files" all_modes
not_faster_than_light() { # 4 tokens and 4 round trips of 10 ms
    sed -n 's/.*"mode":"sequential".*"rtt_ms":10.*"tok_s":\([0-9.]*\),.*/\1/p' "$SCRATCH/rows" | awk '{ n++; if (!($1 > 0 && $1 < 100)) exit 1 } END { exit n != 2 }' || { cat "$rows" >&2; return 1; }
}
check "the link is there" not_faster_than_light
own_store() { [ ! -e "$home" ] || [ -z "$(ls "$home")" ] || { ls "$home" >&2; return 1; }; }
check "nothing is left in --home" own_store

replay() {
    bench 0 --model $model --replay "$SCRATCH/answers.jsonl" --prime "$SCRATCH/others.jsonl" --mode stop-and-wait --nodes 4,8 --rtt 10 --tokens 8 --json &&
        rows_are 3 && row '"mode":"stop-and-wait"' '"nodes":4' '"tokens":16' && row '"nodes":8'
}
check "--replay follows recorded answers with a model" replay
small() {
    bench 0 --model $model --prompts "$SCRATCH/one" --mode auto,stop-and-wait --draft test/models/tiny-draft --rtt 15 --tokens 6 --json && rows_are 3
}
check "--draft: a small model guesses too" small
random() { bench 0 --model random:qwen2.5-0.5b/5 --front 1 --back 1 --rtt 0 --tokens 3 --quiet && has "$out" "sequential" "auto"; }
check "a model without a tokenizer continues random tokens" random

real_cloud() {
    pin=$("$SPLITINF" identity --home "$home")
    : >"$SCRATCH/ready"
    "$SPLITINF" serve-cloud --model $model --home "$SCRATCH/cloud" --listen 127.0.0.1:0 --allow "$pin" --kv-mem 64M >"$SCRATCH/ready" 2>"$SCRATCH/log" </dev/null &
    cloud=$!
    n=0
    until grep -q ready "$SCRATCH/ready"; do
        n=$((n + 1))
        [ $n -lt 1200 ] || { cat "$SCRATCH/log" >&2; return 1; }
        sleep 0.05
    done
    at=$(sed 's/^ready \(.*\) pin .*/\1/' "$SCRATCH/ready") cloud_pin=$(sed 's/.* pin //' "$SCRATCH/ready")
    bench 0 --model $model --cloud "$at" --pin "$cloud_pin" --home "$home" --prompts "$SCRATCH/one" --tokens 8 --json && rows_are 2 &&
        has "$out" "\"cloud\":\"$at\"" '"mbit":null' && bench 0 --model $model --cloud "$at" --pin "$cloud_pin" --home "$home" --prompts "$SCRATCH/one" --tokens 4 --rtt 20 --json &&
        rows_are 2 && row '"mode":"auto"' '"rtt_ms":20'
}
check "--cloud measures a real one, as it is or behind a link" real_cloud

stopped() { # in the second cell: the first is printed
    "$SPLITINF" bench --model $model --prompts "$SCRATCH/one" --rtt 0,200 --tokens 12 --json >"$out" 2>"$err" </dev/null &
    bench=$!
    n=0
    until grep -q "at 200 ms" "$err"; do
        n=$((n + 1))
        [ $n -lt 1200 ] && kill -0 $bench 2>/dev/null || { cat "$err" >&2; return 1; }
        sleep 0.05
    done
    kill -INT $bench
    wait $bench
    status=$?
    sed 's/.*"rows":\[//; s/\].*//; s/},{/}\n{/g' "$out" >"$rows"
    [ $status = 130 ] && rows_are 2 || { echo "status $status" >&2; cat "$err" >&2; return 1; }
}
check "Ctrl-C: what was measured until then is printed" stopped

wrong() { # TEXT OPTION...
    text=$1
    shift
    bench 2 "$@" && [ ! -s "$out" ] && has "$err" "$text"
}
check "an unknown mode is refused with those that exist" wrong "sequential, stop-and-wait, auto, jacobi, lookahead" --model $model --mode sequential,fast
check "so are numbers that are none" wrong "--rtt 0,x" --model $model --rtt 0,x
check "and codecs" wrong "f32, f16, bf16, q8" --model $model --codec zip
check "a pin without a cloud is no measurement of a cloud" wrong "--cloud" --model $model --pin "$("$SPLITINF" identity --home "$home")"
check "texts need a tokenizer" wrong "--tokenizer" --model random:qwen2.5-0.5b/5 --prompts "$SCRATCH/one"
check "two kinds of prompts at once" wrong "--prompts" --model $model --prompts "$SCRATCH/one" --replay "$SCRATCH/answers.jsonl"
check "a report goes into a directory" wrong "not a directory" --model $model --out "$SCRATCH/one"
check "answers longer than the context" wrong "positions" --model $model --tokens 5000
check "nothing to measure" wrong "--model M" --json
