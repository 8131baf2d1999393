#!/bin/sh
# Help, version, and every way to get the command line wrong.
. test/lib.sh
out=$SCRATCH/out err=$SCRATCH/err

# run ARGUMENT...: the program, its outputs and its status.
run() { "$SPLITINF" "$@" >"$out" 2>"$err" </dev/null; status=$?; }

# usage_error TEXT ARGUMENT...: refused with status 2, nothing on standard output, and TEXT among the words said.
usage_error() {
    text=$1
    shift
    run "$@"
    [ $status = 2 ] || { echo "status $status" >&2; cat "$err" >&2; return 1; }
    [ ! -s "$out" ] && has "$err" "$text"
}

overview() { run --help && [ $status = 0 ] && [ ! -s "$err" ] && has "$out" "usage: splitinf COMMAND" "chat" "bench" "Exit status"; }
check "--help lists the commands" overview
no_promises() { run --help && [ $status = 0 ] && ! grep -qE 'serve-local|attack' "$out"; }
check "--help names no command that does not exist" no_promises
version() {
    run --version && [ $status = 0 ] && [ ! -s "$err" ] &&
        has "$out" "splitinf " "commit " "backends: cpu" "(used)" "yyjson" "PCRE2" "utf8proc" "libedit" && ! grep -q unknown "$out"
}
check "--version names version, commit, backends and libraries" version

same_help() {
    run "$1" --help && [ $status = 0 ] && [ ! -s "$err" ] && cp "$out" "$SCRATCH/help1" &&
        run help "$1" && [ $status = 0 ] && cmp "$out" "$SCRATCH/help1" &&
        case $(head -n 1 "$out") in "usage: splitinf $1 "*) ;; *) return 1 ;; esac
}
check "chat --help and help chat are the same" same_help chat
check "bench --help and help bench are the same" same_help bench
check "serve-cloud --help and help serve-cloud are the same" same_help serve-cloud
narrow() { "$SPLITINF" "$1" --help | awk 'length($0) > 100 { print; bad = 1 } END { exit bad || NR < 20 }' >&2; }
check "chat --help fits in 100 columns" narrow chat
check "bench --help fits in 100 columns" narrow bench
check "serve-cloud --help fits in 100 columns" narrow serve-cloud
check "verify --help fits in 100 columns" narrow verify

check "no command" usage_error "usage: splitinf COMMAND"
check "a command with a slip suggests the right one" usage_error "did you mean 'chat'?" caht
check "a word that is no command" usage_error "there is no command 'xylophone'" xylophone
check "help on a word that is no command" usage_error "there is no command 'xylophone'" help xylophone
check "a command of a later version says so" usage_error "comes with a later version" serve-local
check "an option before the command" usage_error "stands before the command" --model x chat
check "an option with a slip suggests the right one" usage_error "did you mean --temperature?" chat --temprature 1
check "a value of the wrong type" usage_error "--max-tokens: 'ten' is not a whole number (allowed: 0 to" chat --max-tokens ten
check "a value out of range" usage_error "--temperature: '11' is out of range (allowed: 0 to 10)" chat --temperature=11
check "a choice that is none" usage_error "--quant: 'q5' is not known (allowed: one of none, q8, q4)" chat --quant q5
check "a missing value" usage_error "--model needs a value" chat --model
check "an argument that is no option" usage_error "a prompt is given as --prompt TEXT" chat hello
check "no model" usage_error "--model is needed" chat --local --prompt x
check "neither here nor there" usage_error "or --local" chat --model x --prompt x
check "--template-vars without a template" usage_error "--template-vars goes with" chat --local --model x --raw --template-vars '{}' --prompt x
check "contradictions" usage_error "--special goes with --raw" chat --local --model x --special --prompt x

environment() {
    SPLITINF_QUANT=q5 "$SPLITINF" chat --local --model x --prompt x >"$out" 2>"$err"
    [ $? = 2 ] && has "$err" "SPLITINF_QUANT: 'q5' is not known"
}
check "a wrong value in the environment names the variable" environment
line_wins() {
    SPLITINF_MODEL=/nonexistent/environment "$SPLITINF" chat --local --model /nonexistent/line --prompt x >"$out" 2>"$err"
    [ $? = 1 ] && has "$err" /nonexistent/line
}
check "the command line wins over the environment" line_wins
from_environment() {
    SPLITINF_MODEL=/nonexistent/environment SPLITINF_LOCAL=1 "$SPLITINF" chat --prompt x >"$out" 2>"$err"
    [ $? = 1 ] && has "$err" /nonexistent/environment
}
check "the environment is enough" from_environment

full_disk() {
    "$SPLITINF" --help >/dev/full 2>"$err"
    [ $? = 1 ] && has "$err" "No space left"
}
if [ -w /dev/full ]; then
    check "a full disk is a failure" full_disk
else
    echo "skip a full disk is a failure: there is no /dev/full"
fi
