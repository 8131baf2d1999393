#!/bin/sh
# shellcheck disable=SC2154 # serve sets $a_at, $a_pin, $a_process and the like
# The main job as a user runs it: serve-cloud in one process, chat in another, TLS between them; the text is the one of the
# model alone behind the same codec, whatever happens to the connection, the cloud or the client.
. test/lib.sh
out=$SCRATCH/out err=$SCRATCH/err model=test/models/tiny
servers=
trap 'for each in $servers; do kill -9 "$each" 2>/dev/null; done' EXIT
pin=$("$SPLITINF" identity --home "$SCRATCH/client")
prompt="Tell me a story about a fox."

# await FILE TEXT: until FILE holds TEXT.
await() {
    n=0
    until grep -qF -e "$2" "$1"; do
        n=$((n + 1))
        [ $n -lt 1200 ] || { echo "$1 does not get: $2" >&2; cat "$1" >&2; return 1; }
        sleep 0.05
    done
}
# serve NAME OPTION...: a cloud with its own home; sets $NAME_at, $NAME_pin, $NAME_process.
serve() {
    box=$1
    shift
    : >"$SCRATCH/$box.out"
    "$SPLITINF" serve-cloud --home "$SCRATCH/$box" --allow "$pin" --kv-mem 16M "$@" \
        >"$SCRATCH/$box.out" 2>>"$SCRATCH/$box.err" </dev/null 4>&- & # 4: the script of a conversation
    server=$!
    servers="$servers $server"
    await "$SCRATCH/$box.out" ready || { cat "$SCRATCH/$box.err" >&2; return 1; }
    eval "${box}_process=$server"
    eval "${box}_at=$(sed 's/^ready \(.*\) pin .*/\1/' "$SCRATCH/$box.out")"
    eval "${box}_pin=$(sed 's/.* pin //' "$SCRATCH/$box.out")"
}
stop() { kill "$1" 2>/dev/null; wait "$1" 2>/dev/null; }
split() { "$SPLITINF" chat --model $model --home "$SCRATCH/client" --cloud "$a_at" --pin "$a_pin" --prompt "$prompt" "$@" </dev/null; }
alone() { "$SPLITINF" chat --model $model --home "$SCRATCH/client" --local --codec f16 --prompt "$prompt" "$@" </dev/null; }

serve a --model $model --listen 127.0.0.1:0 || { echo "not ok the cloud starts"; exit 1; }

equal() { # OPTION...
    split --quiet "$@" >"$out" 2>"$err" && alone --quiet "$@" >"$SCRATCH/alone" && [ -s "$out" ] && cmp "$out" "$SCRATCH/alone" ||
        { cat "$err" >&2; return 1; }
}
check "the text of a split model is that of the model alone" equal --max-tokens 60
check "and when it is drawn" equal --max-tokens 60 --temperature 0.8 --top-p 0.95 --seed 7
check "and when it is drawn with another seed" equal --max-tokens 60 --temperature 0.8 --top-p 0.95 --seed 8
check "and without a template, in chunks of one" equal --max-tokens 40 --raw --chunk 1 --prompt "Once upon a time"
for codec in f32 bf16 q8; do check "and in codec $codec" equal --max-tokens 40 --codec $codec; done
f32_is_local() {
    split --quiet --max-tokens 60 --codec f32 >"$out" && "$SPLITINF" chat --model $model --local --quiet --max-tokens 60 \
        --prompt "$prompt" </dev/null >"$SCRATCH/alone" && cmp "$out" "$SCRATCH/alone"
}
check "codec f32 changes nothing at all" f32_is_local
json() { split --json --max-tokens 5 >"$out" 2>"$err" && has "$out" '"rtt_ms":' '"bytes_up":' '"bytes_down":' '"recoveries":0'; }
check "--json tells the round trip and the bytes" json
verified() {
    "$SPLITINF" verify --model $model --home "$SCRATCH/client" --cloud "$a_at" --pin "$a_pin" --tokens 12 --audit 2 >"$out" 2>"$err" &&
        has "$out" "all 60 answers of the split (codec f16) equal" "audit   layer"
}
check "verify, with an audit" verified
verify_alone() {
    "$SPLITINF" verify --model $model --tokens 6 --codec q8 --json >"$out" 2>"$err" && has "$out" '"equal":true' '"codec":"q8"'
}
check "verify starts a cloud of its own" verify_alone

pin_alone() { "$SPLITINF" verify --model $model --home "$SCRATCH/client" --pin "$a_pin" --tokens 2 >"$out" 2>"$err"; [ $? = 2 ] && has "$err" "--cloud" && [ ! -s "$out" ]; }
check "verify with a pin and no cloud is no verification" pin_alone
echo "Once upon a time there was a fox" >"$SCRATCH/one"
small="--prompts $SCRATCH/one --tokens 1 --audit 2" # its text is longer than the windows of the cloud w
exact="every bit" # what an audit holds a cloud to, where both compute on a CPU
[ "${SPLITINF_BACKEND:-cpu}" = cpu ] || exact="a row may differ by"
audit_small() {
    # shellcheck disable=SC2086,SC2154 # words; set by serve
    serve w --model $model --listen 127.0.0.1:0 --max-rows 4 &&
        "$SPLITINF" verify --model $model --home "$SCRATCH/client" --cloud "$w_at" --pin "$w_pin" $small >"$out" 2>"$err" &&
        has "$out" "audit   4 positions" "$exact" "audit   layer"
    rc=$?
    stop "$w_process"
    return $rc
}
check "an audit of a cloud that takes small windows only" audit_small
audit_tiny() {
    # shellcheck disable=SC2086,SC2154 # words; set by serve
    serve w --model $model --listen 127.0.0.1:0 --max-rows 2 &&
        ! "$SPLITINF" verify --model $model --home "$SCRATCH/client" --cloud "$w_at" --pin "$w_pin" $small >"$out" 2>"$err" &&
        has "$err" "an audit of fewer than 4"
    rc=$?
    stop "$w_process"
    return $rc
}
check "and of windows that show nothing there is none" audit_tiny
# audit_ends SIGNAL WHOM: in the midst of an audit over a slow link WHOM (client or cloud) gets it; sets $status.
audit_ends() {
    serve w --model $model --listen 127.0.0.1:0 --max-rows 4 || return 1
    sessions=$(grep -c "session event=created" "$SCRATCH/w.err")
    # shellcheck disable=SC2086
    "$SPLITINF" verify --model $model --home "$SCRATCH/client" --cloud "$w_at" --pin "$w_pin" $small --link-rtt 400 --json \
        >"$out" 2>"$err" </dev/null &
    client=$!
    n=0
    until [ "$(grep -c "session event=created" "$SCRATCH/w.err")" -ge $((sessions + 2)) ]; do # the second is that of the audit
        n=$((n + 1))
        [ $n -lt 1200 ] && kill -0 $client 2>/dev/null || { cat "$err" >&2; return 1; }
        sleep 0.05
    done
    sleep 0.3
    if [ "$2" = client ]; then kill "-$1" $client; else kill "-$1" "$w_process"; fi
    wait $client
    status=$?
    stop "$w_process"
    return 0 # whatever the status of the cloud
}
audit_stopped() {
    audit_ends INT client && [ $status = 130 ] && [ ! -s "$out" ] || { echo "status $status" >&2; cat "$out" "$err" >&2; return 1; }
}
audit_unfinished() { # SIGNAL
    audit_ends "$1" cloud && [ $status = 1 ] && [ ! -s "$out" ] && has "$err" "the audit could not be finished" &&
        ! grep -q "do not use" "$err" || { echo "status $status" >&2; cat "$out" "$err" >&2; return 1; }
}
check "a cloud killed in an audit is not accused" audit_unfinished KILL
check "and one that goes away neither" audit_unfinished TERM
check "Ctrl-C in an audit accuses nobody" audit_stopped

# Who may not, and what does not fit together.
refused() { # STATUS TEXT COMMAND...
    want=$1 text=$2
    shift 2
    "$@" --max-tokens 3 >"$out" 2>"$err"
    status=$?
    [ $status = "$want" ] && [ ! -s "$out" ] && has "$err" "$text" || { echo "status $status" >&2; cat "$err" >&2; return 1; }
}
stranger() { "$SPLITINF" chat --model $model --home "$SCRATCH/stranger" --cloud "$a_at" --pin "$a_pin" --prompt x "$@" </dev/null; }
check "a client that was not allowed is told what to do" refused 1 "--allow $("$SPLITINF" identity --home "$SCRATCH/stranger")" stranger
wrong_pin() { "$SPLITINF" chat --model $model --home "$SCRATCH/client" --cloud "$a_at" --pin "$pin" --prompt x "$@" </dev/null; }
check "a cloud with another pin is refused" refused 1 "$a_pin" wrong_pin
no_pin() { "$SPLITINF" chat --model $model --home "$SCRATCH/client" --cloud "$a_at" --prompt x "$@" </dev/null; }
check "a cloud that is not known needs a pin" refused 1 "--trust-on-first-use" no_pin
check "another split is named with both numbers" refused 1 "layers" split --front 3
check "another KV type" refused 1 "--kv" split --kv f32 --backend cpu
check "another quantisation" refused 1 "quant" split --quant q8
nobody() { "$SPLITINF" chat --model $model --home "$SCRATCH/client" --cloud 127.0.0.1:1 --pin "$a_pin" --prompt x "$@" </dev/null; }
check "nobody listens" refused 1 "127.0.0.1:1" nobody
first_use() {
    no_pin --trust-on-first-use --max-tokens 3 --quiet >"$out" 2>"$err" && no_pin --max-tokens 3 --quiet >"$SCRATCH/again" 2>"$err" &&
        [ -s "$out" ] && cmp "$out" "$SCRATCH/again" && has "$SCRATCH/client/known_clouds" "$a_at $a_pin"
}
check "--trust-on-first-use remembers a cloud" first_use
changed() {
    sed "s|$a_pin|$pin|" "$SCRATCH/client/known_clouds" >"$SCRATCH/known" && cp "$SCRATCH/known" "$SCRATCH/client/known_clouds" &&
        refused 1 "$a_pin" no_pin --trust-on-first-use
}
check "a remembered pin that changed is refused, first use or not" changed

# The rented machine needs the middle layers only.
exported() {
    "$SPLITINF" serve-cloud --model $model --export-middle "$SCRATCH/middle" 2>"$err" && serve m --model "$SCRATCH/middle" --listen 127.0.0.1:0 &&
        "$SPLITINF" chat --model $model --home "$SCRATCH/client" --cloud "$m_at" --pin "$m_pin" --prompt "$prompt" --quiet \
            --max-tokens 40 </dev/null >"$out" && alone --quiet --max-tokens 40 >"$SCRATCH/alone" && cmp "$out" "$SCRATCH/alone" &&
        ! "$SPLITINF" chat --model "$SCRATCH/middle" --local --raw --prompt x --max-tokens 1 </dev/null 2>/dev/null
    rc=$?
    stop "$m_process"
    return $rc
}
check "serve-cloud runs from an exported middle, and chat cannot" exported

# Faults in mid-answer. The answer takes some seconds: an emulated round trip for each of its tokens.
long="--max-tokens 160 --temperature 0.8 --top-p 0.95 --seed 3"
# shellcheck disable=SC2086 # words
alone --quiet $long >"$SCRATCH/undisturbed"
talk() { # OPTION...: starts chat; its text goes to $out
    : >"$out"
    # shellcheck disable=SC2086
    "$SPLITINF" chat --model $model --home "$SCRATCH/client" --prompt "$prompt" --link-rtt 20 $long "$@" >"$out" 2>"$err" </dev/null &
    client=$!
    n=0
    until [ "$(wc -c <"$out")" -ge 60 ]; do # it is talking
        n=$((n + 1))
        [ $n -lt 1200 ] && kill -0 $client 2>/dev/null || { cat "$err" >&2; return 1; }
        sleep 0.05
    done
}
undisturbed() { # TEXT: what was said of it
    wait "$client" && cmp "$out" "$SCRATCH/undisturbed" && has "$err" "$1" || { cat "$err" >&2; return 1; }
}
killed() {
    serve b --model $model --listen 127.0.0.1:0 && talk --cloud "$b_at" --pin "$b_pin" || return 1
    kill -9 "$b_process"
    wait "$b_process" 2>/dev/null
    sleep 0.3
    serve b --model $model --listen "$b_at" && undisturbed "the pause was"
}
check "a cloud that is killed and started again in mid-answer" killed
second() {
    talk --cloud "$b_at" --pin "$b_pin" --cloud "$a_at" --pin "$a_pin" --patience 8 || return 1
    kill -9 "$b_process"
    wait "$b_process" 2>/dev/null
    undisturbed "the pause was"
}
check "a second cloud takes over" second
drained() {
    serve b --model $model --listen 127.0.0.1:0 && talk --cloud "$b_at" --pin "$b_pin" --cloud "$a_at" --pin "$a_pin" || return 1
    kill "$b_process"
    wait "$b_process"
    status=$?
    undisturbed "the pause was" && [ $status = 0 ]
}
check "a cloud that is told to stop leaves with status 0, and a second one takes over" drained
paused() {
    serve b --model $model --listen 127.0.0.1:0 --session-ttl 1 && talk --cloud "$b_at" --pin "$b_pin" || return 1
    # A kill of the connection while the client sleeps: the cloud has forgotten the session when it wakes.
    kill -STOP "$client"
    kill -9 "$b_process"
    wait "$b_process" 2>/dev/null
    serve b --model $model --listen "$b_at" --session-ttl 1
    sleep 1.5
    kill -CONT "$client"
    undisturbed "the pause was"
}
check "a client that slept while its session was forgotten" paused
gone() {
    talk --cloud "$b_at" --pin "$b_pin" --patience 2 || return 1
    kill -9 "$b_process"
    wait "$b_process" 2>/dev/null
    wait "$client"
    status=$?
    n=$(wc -c <"$out")
    [ $status = 1 ] && [ "$n" -ge 60 ] && head -c "$n" "$SCRATCH/undisturbed" | cmp - "$out" && has "$err" "no cloud within 2.0 s"
}
check "a cloud that stays away: what was said stands, and a clear error" gone
interrupted() {
    serve b --model $model --listen 127.0.0.1:0 && talk --cloud "$b_at" --pin "$b_pin" || return 1
    kill -9 "$b_process"
    wait "$b_process" 2>/dev/null
    sleep 0.5
    kill -INT "$client"
    wait "$client"
    [ $? = 130 ]
}
check "Ctrl-C ends the wait for a cloud" interrupted

# A conversation at a terminal, over a cloud that dies between two turns and in an answer. The script comes as it is needed.
pty=$SCRATCH/pty_run
${CC:-cc} -std=c11 -D_GNU_SOURCE -O1 -o "$pty" test/tools/pty_run.c -lutil || { echo "not ok pty_run does not compile"; exit 1; }
mkfifo "$SCRATCH/script"
person() { # OPTION...: starts a conversation, whose script is descriptor 4
    : >"$out"
    TERM=xterm "$pty" 60 "$SPLITINF" chat --model $model --home "$SCRATCH/client" --history off --max-tokens 40 "$@" \
        >"$out" 2>"$err" <"$SCRATCH/script" &
    client=$!
    exec 4>"$SCRATCH/script"
    printf 'expect > \ntype %s\nexpect cut at max-tokens\n' "$prompt" >&4
    await "$out" "cut at max-tokens"
}
leave() { # FILE: saves the conversation and ends it
    printf 'type /save %s\nexpect saved to\ntype /quit\n' "$1" >&4
    exec 4>&-
    wait "$client"
}
conversation() {
    person --local --codec f16 && printf 'type And then?\nexpect short stories.\nexpect > \n' >&4 && leave "$SCRATCH/said_alone.json" || return 1
    serve b --model $model --listen 127.0.0.1:0 && person --cloud "$b_at" --pin "$b_pin" --patience 2 || return 1
    kill -9 "$b_process"
    wait "$b_process" 2>/dev/null
    printf 'type And then?\nexpect was lost\nkeys ^C\nexpect stopped; /retry\n' >&4
    await "$out" "stopped; /retry" || return 1
    printf 'type /retry\nexpect no cloud within\nexpect your message is kept\n' >&4
    await "$out" "your message is kept" && serve b --model $model --listen "$b_at" || return 1
    printf 'type /retry\nexpect short stories.\nexpect > \n' >&4
    leave "$SCRATCH/said_split.json" && cmp "$SCRATCH/said_alone.json" "$SCRATCH/said_split.json"
}
check "a conversation outlives its cloud, Ctrl-C and the end of patience" conversation

no_content() { ! grep -rhiE 'fox|emma|story' "$SCRATCH"/a.err "$SCRATCH"/b.err >&2; }
check "no word of the conversation is in a log" no_content
mixed() {
    serve q --model $model --listen 127.0.0.1:0 --quant q8 && refused 1 "quant" "$SPLITINF" chat --model $model \
        --home "$SCRATCH/client" --cloud "$q_at" --pin "$q_pin" --prompt "$prompt" || return 1
    "$SPLITINF" chat --model $model --home "$SCRATCH/client" --cloud "$q_at" --pin "$q_pin" --middle-quant q8 --prompt "$prompt" \
        --quiet --max-tokens 40 </dev/null >"$out" && alone --quiet --max-tokens 40 --middle-quant q8 >"$SCRATCH/alone" &&
        [ -s "$out" ] && cmp "$out" "$SCRATCH/alone" &&
        "$SPLITINF" verify --model $model --home "$SCRATCH/client" --cloud "$q_at" --pin "$q_pin" --middle-quant q8 --tokens 4 \
            --audit 3 >"$out" 2>"$err" && has "$out" "bit for bit"
    rc=$?
    stop "$q_process"
    return $rc
}
check "a cloud with quantised weights, and full ones at home" mixed
leaves() { kill "$a_process"; wait "$a_process"; }
check "SIGTERM ends a cloud with status 0" leaves
