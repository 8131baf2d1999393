#!/bin/sh
# chat at a terminal: conversation, slash commands, Ctrl-C, history, files. test/tools/pty_run.c plays the person.
. test/lib.sh
. test/model.sh
out=$SCRATCH/out
pty=$SCRATCH/pty_run
export TERM=xterm
${CC:-cc} -std=c11 -D_GNU_SOURCE -O1 -o "$pty" test/tools/pty_run.c -lutil || { echo "not ok pty_run does not compile"; exit 1; }

# play OPTION...: the program at a terminal; the script comes from standard input. Its transcript is in $out.
play() { "$pty" 60 "$SPLITINF" chat "$@" >"$out" 2>"$SCRATCH/pty_err"; status=$?; }
ended() {
    [ $status = "$1" ] && [ ! -s "$SCRATCH/pty_err" ] && return 0
    { echo "status $status"; cat "$SCRATCH/pty_err"; tail -n 30 "$out"; } >&2
    return 1
}
# talk OPTION...: a conversation with the model.
talk() { play --local --model "$model" --chat-template "$template" "$@"; }

interrupt() {
    # shellcheck disable=SC2086 # a list of options
    play $endless --chat-template "$template" <<'END'
expect > 
type Once upon a time
expect Lily
keys ^C
expect stopped
expect > 
type /stats
expect ended by: interrupt
expect > 
type /quit
END
    ended 0
}
check "Ctrl-C stops the answer and not the program" interrupt
# Standard output is a pipe that is full: the answer waits in its first write.
interrupt_blocked() {
    mkfifo "$SCRATCH/full" && exec 3<>"$SCRATCH/full"
    dd if=/dev/zero of="$SCRATCH/full" bs=4096 oflag=nonblock 2>/dev/null
    # shellcheck disable=SC2086,SC2016 # a list of options; a command for the inner shell
    "$pty" 60 sh -c 'out=$1; shift; exec "$@" >"$out"' sh "$SCRATCH/full" "$SPLITINF" chat $endless \
        --chat-template "$template" >"$out" 2>"$SCRATCH/pty_err" <<'END'
expect > 
type Once upon a time
sleep 500
kill 28
sleep 200
keys ^C
expect stopped
expect > 
type /stats
expect ended by: interrupt
type /quit
END
    status=$?
    exec 3>&-
    ended 0
}
check "Ctrl-C stops an answer that nobody reads" interrupt_blocked
output_fails() {
    # shellcheck disable=SC2016 # a command for the inner shell
    "$pty" 60 sh -c 'exec "$@" >/dev/full' sh "$SPLITINF" chat --local --model "$model" --chat-template "$template" \
        --max-tokens 5 >"$out" 2>"$SCRATCH/pty_err" <<'END'
expect > 
type Once upon a time
expect writing the answer to standard output: No space left
END
    status=$?
    ended 1
}
if [ -w /dev/full ]; then
    check "a full disk ends the conversation with a message" output_fails
else
    echo "skip a full disk ends the conversation: there is no /dev/full"
fi
interrupt_oneshot() {
    # shellcheck disable=SC2086 # a list of options
    play $endless --raw --prompt "Once upon a time" <<'END'
expect Lily
keys ^C
END
    ended 130
}
check "Ctrl-C ends a one-shot answer with status 130" interrupt_oneshot
terminate() {
    # shellcheck disable=SC2086 # a list of options
    play $endless --chat-template "$template" <<'END'
expect > 
type Once upon a time
expect Lily
kill 15
END
    ended 143
}
check "a termination signal stops an answer and the program" terminate
terminate_waiting() {
    talk <<'END'
expect > 
type half a mess
expect > 
keys age
sleep 200
kill 15
END
    ended 143
}
check "a termination signal ends the wait for a line" terminate_waiting
hangup() {
    talk <<'END'
expect > 
hangup
END
    [ $status = 129 ] || [ $status = 0 ] || ended 129
}
check "a terminal that goes away ends the program" hangup

interrupt_line() {
    talk --max-tokens 5 <<'END'
expect > 
keys some words
expect some words
keys ^C
expect leaves
expect > 
type /stats
expect nothing was answered yet
expect > 
keys ^D
END
    ended 0
}
check "Ctrl-C at the prompt drops the line, Ctrl-D leaves" interrupt_line

# A second turn: everything of the first one, prompt and answer, was computed before, but for its last token.
reuse() {
    talk --max-tokens 30 <<'END'
expect > 
type Once upon a time
expect cut at max-tokens
type /stats
expect context
expect positions
type The dog
expect cut at max-tokens
type /stats
expect computed before
expect > 
keys ^D
END
    ended 0 || return 1
    first=$(sed -n 's/^context *\([0-9]*\) of.*/\1/p' "$out" | head -n 1)
    before=$(sed -n 's/^prompt .* \([0-9]*\) of them computed before.*/\1/p' "$out" | tail -n 1)
    [ "$first" -gt 30 ] && [ "$first" = "$before" ] || { echo "context $first, reused $before" >&2; return 1; }
}
check "a second turn computes only what is new" reuse
# The same with a template of the model's own, and an answer that the model ends itself.
reuse_tiny() {
    play --local --model test/models/tiny <<'END'
expect > 
type Tell me about the sea.
expect > 
type /stats
expect ended by: eos
expect positions
type And about dogs?
expect > 
type /stats
expect computed before
expect > 
keys ^D
END
    ended 0 || return 1
    first=$(sed -n 's/^context *\([0-9]*\) of.*/\1/p' "$out" | head -n 1)
    before=$(sed -n 's/^prompt .* \([0-9]*\) of them computed before.*/\1/p' "$out" | tail -n 1)
    [ "$first" = "$before" ] || { echo "context $first, reused $before" >&2; return 1; }
}
if [ -f test/models/tiny/model.safetensors ]; then
    check "and so with the tiny model's own template" reuse_tiny
fi
# What the second turn says is what a program says that is given the whole text at once, words that were generated included.
same_as_alone() {
    talk --max-tokens 30 <<END
expect > 
type Once upon a time
expect cut at max-tokens
expect > 
type The dog
expect cut at max-tokens
expect > 
type /save $SCRATCH/turns.json
expect saved
keys ^D
END
    ended 0 || return 1
    contents() { sed -n 's/^ *"content": "\(.*\)"$/\1/p' "$SCRATCH/turns.json" | sed 's/\\"/"/g'; }
    contents | sed '$d' | while IFS= read -r line; do printf '%b\n' "$line"; done >"$SCRATCH/prompt"
    echo >>"$SCRATCH/prompt" # standard input loses its last newline
    "$SPLITINF" chat --local --model "$model" --raw --max-tokens 30 --quiet <"$SCRATCH/prompt" >"$SCRATCH/alone"
    [ "$(cat "$SCRATCH/alone")" = "$(printf '%b' "$(contents | tail -n 1)")" ] && [ -s "$SCRATCH/alone" ]
}
check "and says what a program says that is given both at once" same_as_alone

slashes() {
    talk --max-tokens 5 <<'END'
expect > 
type /help
expect /retry
expect Ctrl-C stops an answer
expect > 
type /sats
expect there is no command /sats; did you mean /stats?
expect > 
type /set temprature 1
expect did you mean temperature?
expect > 
type /set temperature 11
expect temperature: '11' is out of range (allowed: 0 to 10)
expect > 
type /set logit-bias 9999=1
expect token 9999 is not in the model's vocabulary
expect > 
type /set temperature 0.25
expect > 
type /set stop dog
expect > 
type /set
expect temperature        0.25
expect logit-bias         
expect stop               'dog'
expect > 
type /save
expect /save needs a file name
expect > 
type /load /nonexistent
expect /nonexistent
expect > 
type /drop 3
expect only one turn is left
expect > 
type /retry
expect there is no message to send again
expect > 
type //help
expect cut at max-tokens 5
expect > 
type /quit
END
    ended 0
}
check "slash commands, right and wrong" slashes
lines() {
    talk --max-tokens 5 <<'END'
expect > 
type one \
expect ... 
type two
expect cut at max-tokens
expect > 
type """
expect ... 
type three
expect ... 
type /four
expect ... 
type """
expect cut at max-tokens
expect > 
type /save lines.json
expect saved
keys ^D
END
    mv lines.json "$SCRATCH" 2>/dev/null
    ended 0 && has "$SCRATCH/lines.json" '"content": "one \ntwo"' '"content": "three\n/four"'
}
check "messages of several lines" lines
files() {
    talk --max-tokens 20 --seed 7 --temperature 0.5 <<END
expect > 
type Once upon a time
expect cut at max-tokens
expect > 
type /save $SCRATCH/saved.json
expect 2 messages saved
expect > 
type /reset
expect a new conversation
expect > 
type /set temperature 2
expect > 
type /load $SCRATCH/saved.json
expect 2 messages from
expect > 
type /set
expect temperature        0.5
expect seed               7
expect > 
type /save $SCRATCH/again.json
expect 2 messages saved
keys ^D
END
    ended 0 && cmp "$SCRATCH/saved.json" "$SCRATCH/again.json" &&
        [ "$(stat -c %a "$SCRATCH/saved.json")" = 600 ] && has "$SCRATCH/saved.json" '"role": "user"' '"content": "Once upon a time"'
}
check "/save and /load keep messages and settings" files
bad_files() {
    printf 'hello' >"$SCRATCH/b1"
    printf '{"splitinf_chat":1,"messages":[{"role":"king","content":"x"}]}' >"$SCRATCH/b2"
    printf '{"splitinf_chat":1,"messages":[],"settings":{"temperature":99}}' >"$SCRATCH/b3"
    printf '{"splitinf_chat":1,"messages":[],"settings":{"logit-bias":["9999=1"]}}' >"$SCRATCH/b4"
    talk --max-tokens 20 <<END
expect > 
type Once upon a time
expect cut at max-tokens
expect > 
type /load $SCRATCH/b1
expect is no saved conversation
expect > 
type /load $SCRATCH/b2
expect a message without a role
expect > 
type /load $SCRATCH/b3
expect temperature: '99' is out of range
expect > 
type /load $SCRATCH/b4
expect token 9999
expect > 
type /set
expect temperature        0
expect > 
type /save $SCRATCH/still.json
expect 2 messages saved
keys ^D
END
    ended 0
}
check "a file that is wrong changes nothing" bad_files
retry() {
    talk --max-tokens 20 --temperature 1.5 <<END
expect > 
type Once upon a time
expect cut at max-tokens
expect > 
type /save $SCRATCH/r1
expect saved
expect > 
type /retry
expect cut at max-tokens
expect > 
type /save $SCRATCH/r2
expect 2 messages saved
keys ^D
END
    ended 0 && ! cmp -s "$SCRATCH/r1" "$SCRATCH/r2"
}
check "/retry draws another answer" retry

retry_empty() {
    talk --max-tokens 20 --temperature 0 <<END
expect > 
type Once upon a time
expect cut at max-tokens
expect > 
type /set logit-bias 1=1000
expect > 
type /retry
expect the model answered nothing
expect the earlier answer stays
expect > 
type /save $SCRATCH/stays.json
expect 2 messages saved
expect > 
type /reset
expect a new conversation
expect > 
type Once upon a time
expect the model answered nothing; /retry sends the message again
expect > 
type /load $SCRATCH/stays.json
expect stays.json
expect > 
type /save $SCRATCH/stays2.json
expect 2 messages saved
keys ^D
END
    ended 0
}
check "an empty answer takes no message away, nor the earlier answer" retry_empty

full() {
    talk --ctx 40 --max-tokens 25 <<END
expect > 
type Once upon a time
expect cut at max-tokens
expect > 
type There was a big red dog in the park and it was happy
expect the context is full: the prompt has
expect your message is kept
expect > 
type /save $SCRATCH/full.json
expect 2 messages saved
expect > 
type /reset
expect a new conversation
expect > 
type Then
expect cut at max-tokens
keys ^D
END
    ended 0
}
check "a conversation that outgrows the context loses nothing" full
drop_oldest() {
    talk --ctx 40 --max-tokens 15 --on-full drop-oldest <<END
expect > 
type Once upon a time
expect cut at max-tokens
expect > 
type There was a big red dog in the park and it was happy
expect the oldest 1 turn was forgotten
expect > 
type /save $SCRATCH/dropped.json
expect 2 messages saved
keys ^D
END
    ended 0 && ! grep -q Once "$SCRATCH/dropped.json"
}
check "--on-full drop-oldest forgets the oldest turn" drop_oldest
drop_nothing() {
    long=$(printf 'a big red dog in the park %.0s' 1 2 3 4 5 6 7 8 9 10 11 12)
    talk --ctx 80 --max-tokens 10 --on-full drop-oldest <<END
expect > 
type Once upon a time
expect cut at max-tokens
expect > 
type There was
expect cut at max-tokens
expect > 
type $long
expect tokens even without the older turns
expect your message is kept
expect > 
type /save $SCRATCH/kept.json
expect 4 messages saved
expect > 
type And then
expect cut at max-tokens
keys ^D
END
    ended 0 && has "$SCRATCH/kept.json" Once "There was"
}
check "--on-full drop-oldest forgets nothing for a message that cannot fit" drop_nothing

history() {
    home=$SCRATCH/history_home
    talk --home "$home" --max-tokens 3 <<'END'
expect > 
type Once upon a time
expect cut at max-tokens
expect > 
keys ^D
END
    ended 0 && [ "$(stat -c %a "$home")" = 700 ] && [ "$(stat -c %a "$home/history")" = 600 ] || return 1
    # The first line up in the next run is the one that was typed in the last.
    talk --home "$home" --max-tokens 3 <<'END'
expect > 
keys ^P
expect Once upon a time
keys ^U
type /quit
END
    ended 0
}
check "the history lies in --home and is read again" history
no_history() {
    home=$SCRATCH/no_history_home
    talk --home "$home" --history off --max-tokens 3 <<'END'
expect > 
type Once upon a time
expect cut at max-tokens
expect > 
keys ^D
END
    ended 0 && [ ! -e "$home" ]
}
check "--history off leaves nothing behind" no_history
json_tty() {
    talk --json <<'END'
expect --json needs --prompt
END
    ended 2
}
check "--json at a terminal is refused" json_tty
