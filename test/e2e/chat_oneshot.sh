#!/bin/sh
# chat --local with one prompt, on the small model stories260K: what goes where, and when it is refused.
. test/lib.sh
. test/model.sh
out=$SCRATCH/out err=$SCRATCH/err
once="Once upon a time"
# chat OPTION...: the program on the model. raw: without a template and with the prompt of the known answer.
chat() { "$SPLITINF" chat --local --model "$model" "$@" >"$out" 2>"$err"; status=$?; }
raw() { chat --raw --prompt "$once" --temperature 0 "$@" </dev/null; }
said() { [ $status = "$1" ] || { echo "status $status" >&2; cat "$err" >&2; return 1; }; }

# The beginning of the answer that is published with the model.
known=", there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball. She wanted to play with it, but it was too high.
Lily's mom said, \"Lily, let's go to the park.\" Lily was sad and didn't know what to do. She said, \"I want to play with your ball, but I can't find it.\""
known_answer() {
    raw --max-tokens 160 && said 0 || return 1
    case $(cat "$out") in "$known"*) ;; *) cat "$out" >&2; return 1 ;; esac
}
check "the known answer" known_answer
nothing_else() {
    raw --max-tokens 20 --quiet && said 0 && [ ! -s "$err" ] && [ "$(wc -l <"$out")" = 0 ]
}
check "--quiet: the answer and nothing else" nothing_else

as_before() { # OPTION...: the text is the one of the plain run
    raw --max-tokens 100 && cp "$out" "$SCRATCH/plain" && raw --max-tokens 100 "$@" && said 0 && cmp "$out" "$SCRATCH/plain"
}
check "the same in windows of one token" as_before --chunk 1
check "the same with another split" as_before --front 0 --back 5
check "the same with more front than layers" as_before --front 9 --back 9
check "the same on one thread" as_before --threads 1
check "the same with portable instructions" as_before --isa portable
check "the same with penalties that are off" as_before --repeat-penalty 1 --presence-penalty 0 --frequency-penalty 0

clamped() { raw --max-tokens 1 --front 9 && said 0 && has "$err" "has 5 layers: --front 5 --back 0"; }
check "more front than layers is said" clamped

from_stdin() {
    raw --max-tokens 30 --quiet && cp "$out" "$SCRATCH/plain" || return 1
    printf '%s\n' "$once" | "$SPLITINF" chat --local --model "$model" --raw --max-tokens 30 --quiet >"$out" 2>"$err"
    [ -s "$out" ] && cmp "$out" "$SCRATCH/plain"
}
check "a prompt on standard input, less its last newline" from_stdin
nul_byte() { printf 'a\0b' | "$SPLITINF" chat --local --model "$model" --raw >"$out" 2>"$err"; status=$?; said 2 && has "$err" "NUL byte"; }
check "a NUL byte on standard input is refused" nul_byte
no_input() { chat --raw </dev/null; said 2 && has "$err" "standard input is empty"; }
check "an empty standard input is refused" no_input

stops() {
    raw --stop "outside in" --stop "red ball" && said 0 && [ "$(cat "$out")" = ", there was a little girl named Lily. She loved to play " ] &&
        [ ! -s "$err" ]
}
check "a stop string ends the answer before it" stops
limit() { raw --max-tokens 3 && said 0 && has "$err" "cut at --max-tokens 3"; }
check "a cut answer is said" limit

json() {
    raw --max-tokens 12 --quiet && cp "$out" "$SCRATCH/plain"
    raw --max-tokens 12 --json && said 0 && [ ! -s "$err" ] && [ "$(wc -l <"$out")" = 1 ] &&
        has "$out" "{\"text\":\"$(cat "$SCRATCH/plain")\"" '"prompt_tokens":' '"steps":11,' '"tokens_per_step":1.0,' '"tok_s":' \
            '"ttft_ms":' '"rtt_ms":null' '"stop_reason":"length"' '"seed":null' &&
        [ "$(sed 's/.*"tokens":\[\([0-9,]*\)\].*/\1/' "$out" | tr ',' '\n' | wc -l)" = 12 ]
}
check "--json is one object with all fields" json
seeds() {
    chat --raw --prompt "$once" --temperature 1 --max-tokens 40 --json </dev/null && cp "$out" "$SCRATCH/first" || return 1
    seed=$(sed 's/.*"seed":\([0-9]*\).*/\1/' "$out")
    chat --raw --prompt "$once" --temperature 1 --max-tokens 40 --json --seed "$seed" </dev/null
    text() { sed 's/,"tokens":.*//' "$1"; }
    [ "$(text "$out")" = "$(text "$SCRATCH/first")" ] || return 1
    chat --raw --prompt "$once" --temperature 1 --max-tokens 40 --json </dev/null
    [ "$(text "$out")" != "$(text "$SCRATCH/first")" ]
}
check "the seed that is printed repeats a run, and another run draws another one" seeds
bias() {
    raw --max-tokens 8 --json && first=$(sed 's/.*"tokens":\[\([0-9]*\).*/\1/' "$out") || return 1
    raw --max-tokens 8 --json --logit-bias "$first=ban" && said 0 && ! grep -q "\"tokens\":\[$first," "$out"
}
check "a token that is banned does not come" bias
bad_bias() { raw --logit-bias 600=1; said 2 && has "$err" "token 600 is not in the model's vocabulary of 512"; }
check "a bias for no token is refused" bad_bias
statistics() { raw --max-tokens 5 --stats && said 0 && has "$err" "prompt " "answer   5 tokens" "context " "time "; }
check "--stats on standard error" statistics

context() { raw --ctx 32 && said 0 && has "$err" "the context of 32 tokens is full; --ctx can go up to 512"; }
check "a full context ends the answer with a warning" context
too_long() {
    raw --ctx 4
    said 2 && has "$err" "the prompt has 5 tokens, --ctx gives 4" && [ ! -s "$out" ]
}
check "a prompt longer than the context is refused with numbers" too_long
too_much() { raw --ctx 513; said 2 && has "$err" "at most 512 positions"; }
check "a context larger than the model's is refused" too_much
memory() {
    raw --memory 100K
    said 1 && has "$err" "needs " "weights " "KV cache of 512 positions" "is what --memory allows" "--quant q8 or q4" "--ctx"
}
check "memory that does not suffice is refused with numbers and advice" memory

no_template() { chat --prompt x </dev/null; said 2 && has "$err" "has no chat template" "--raw"; }
check "a model without a template: --raw is suggested" no_template
template() { chat --prompt "$once" --chat-template "$template" --max-tokens 5 </dev/null; said 0 && [ -s "$out" ]; }
check "a template from a file" template
refusing() {
    echo "{{ raise_exception('No system prompts here') }}" >"$SCRATCH/refusing.jinja"
    chat --prompt x --system y --chat-template "$SCRATCH/refusing.jinja" </dev/null
    said 2 && has "$err" "chat template refuses this conversation: No system prompts here"
}
check "a template that refuses a conversation" refusing
broken() {
    echo "{% frobnicate %}" >"$SCRATCH/broken.jinja"
    chat --prompt x --chat-template "$SCRATCH/broken.jinja" </dev/null
    said 1 && has "$err" "$SCRATCH/broken.jinja" frobnicate
}
check "a template that cannot be run names the construct" broken
no_model() { "$SPLITINF" chat --local --model "$SCRATCH/nothing" --raw --prompt x >"$out" 2>"$err"; status=$?; said 1 && has "$err" "$SCRATCH/nothing"; }
check "a model that is not there" no_model
no_tokenizer() {
    "$SPLITINF" chat --local --model random:qwen2.5-0.5b/1 --raw --prompt x >"$out" 2>"$err"
    status=$?
    said 2 && has "$err" "has no tokenizer" "--tokenizer"
}
check "a model without a tokenizer" no_tokenizer
foreign() {
    "$SPLITINF" chat --local --model test/models/families/qwen2 --tokenizer "$model" --raw --prompt x >"$out" 2>"$err"
    status=$?
    said 1 && has "$err" "do not belong together"
}
if [ -d test/models/families/qwen2 ]; then
    check "a tokenizer with more tokens than the model" foreign
fi

closed_pipe() {
    # shellcheck disable=SC2086 # a list of options
    { "$SPLITINF" chat $endless --raw --prompt "$once" 2>"$err"; echo $? >"$SCRATCH/status"; } | head -c 5 >"$out"
    [ "$(cat "$SCRATCH/status")" = 0 ] && [ ! -s "$err" ]
}
check "a reader that goes away ends the answer quietly" closed_pipe
full_disk() {
    "$SPLITINF" chat --local --model "$model" --raw --prompt "$once" --max-tokens 9 "$@" >/dev/full 2>"$err" </dev/null
    status=$?
    said 1 && has "$err" "No space left"
}
if [ -w /dev/full ]; then
    check "a full disk is a failure" full_disk
    check "a full disk is a failure for --json too" full_disk --json
else
    echo "skip a full disk is a failure: there is no /dev/full"
fi
interrupted() {
    mkfifo "$SCRATCH/fifo"
    sleep 30 >"$SCRATCH/fifo" &
    writer=$!
    "$SPLITINF" chat --local --model "$model" --raw <"$SCRATCH/fifo" >"$out" 2>"$err" &
    sleep 1
    kill -INT $!
    wait $!
    status=$?
    kill $writer
    said 130 && [ ! -s "$out" ]
}
# A shell without job control starts background programs with Ctrl-C ignored, and a program keeps what it was given unless
# it asks for more; ours does.
check "Ctrl-C while a prompt is read" interrupted
terminated() {
    mkfifo "$SCRATCH/fifo2"
    sleep 30 >"$SCRATCH/fifo2" &
    writer=$!
    "$SPLITINF" chat --local --model "$model" --raw <"$SCRATCH/fifo2" >"$out" 2>"$err" &
    sleep 1
    kill -TERM $!
    wait $!
    status=$?
    kill $writer
    said 143 && [ ! -s "$out" ]
}
check "a termination signal while a prompt is read" terminated

# to_full_pipe OPTION...: starts an answer whose first write waits, since standard output is a pipe that is full.
to_full_pipe() {
    rm -f "$SCRATCH/full"
    mkfifo "$SCRATCH/full" && exec 3<>"$SCRATCH/full"
    dd if=/dev/zero of="$SCRATCH/full" bs=4096 oflag=nonblock 2>/dev/null
    "$SPLITINF" chat --local --model "$model" --raw --prompt "$once" --quiet "$@" >"$SCRATCH/full" 2>"$err" </dev/null 3>&- &
    sleep 1
}
interrupted_writing() {
    to_full_pipe "$@"
    kill -INT $!
    wait $!
    status=$?
    exec 3>&-
    said 130 && [ ! -s "$err" ]
}
check "Ctrl-C while nobody reads the answer" interrupted_writing --max-tokens 20
check "Ctrl-C while nobody reads the JSON" interrupted_writing --max-tokens 20 --json
resized_writing() {
    to_full_pipe --max-tokens 20
    program=$!
    kill -WINCH $program
    sleep 0.2
    kill -CONT $program
    sleep 0.2
    exec 4<"$SCRATCH/full" 3>&-
    tr -d '\000' <&4 >"$out" &
    reader=$!
    exec 4<&-
    wait $program
    status=$?
    wait $reader
    said 0 && cp "$out" "$SCRATCH/late" && raw --max-tokens 20 --quiet && cmp "$out" "$SCRATCH/late"
}
check "a terminal that changes size does not disturb a waiting write" resized_writing

# What was typed on the command line is not left in the process list.
hidden() {
    : >"$out"
    # shellcheck disable=SC2086 # words
    "$SPLITINF" chat $endless --chat-template "$template" --system "a hidden word" --prompt "another hidden word" --quiet >"$out" 2>"$err" </dev/null &
    program=$!
    n=0
    until [ -s "$out" ]; do
        n=$((n + 1))
        [ $n -lt 600 ] && kill -0 $program 2>/dev/null || return 1
        sleep 0.1
    done
    tr '\000' ' ' <"/proc/$program/cmdline" >"$SCRATCH/cmdline"
    kill $program
    wait $program
    has "$SCRATCH/cmdline" --system && ! grep -q hidden "$SCRATCH/cmdline"
}
check "neither prompt nor system prompt stays in the process list" hidden
