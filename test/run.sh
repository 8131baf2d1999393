#!/bin/sh
# Runs every test against one build directory, prints what failed and what was skipped at the end, and then one line:
# "N passed, N failed, N skipped". Exit status 1 when anything failed.
#
#   test/run.sh DIR [FILTER]      FILTER: only scripts and suites whose name holds it
#
# Three kinds of tests:
#   DIR/unit           Criterion, read through its TAP report. A test without a result, a crash, a timeout or an exit status
#                      that the report does not explain is a failure.
#   DIR/replay_NAME    a fuzz target over its corpus, test/fuzz/corpus/NAME: one test each.
#   test/e2e/*.sh      scripts that print "ok NAME", "not ok NAME" or "skip NAME: REASON", a line per test; other output is shown
#                      only when something failed. They find the program in $SPLITINF and a scratch folder in $SCRATCH.
# A report of a sanitizer in any process is a failure too, whatever the process made of it: Criterion does not see leaks.
set -u
cd "$(dirname -- "$0")/.." || exit 1
[ $# -ge 1 ] && [ -d "$1" ] || { echo "usage: test/run.sh BUILD_DIR [FILTER]" >&2; exit 2; }
build=$(CDPATH='' cd -- "$1" && pwd)
filter=${2:-}

tmp=$(mktemp -d)
child=
trap 'rm -rf "$tmp"' EXIT
trap '[ -z "$child" ] || kill "$child" 2>/dev/null; cat "$tmp"/scripts/*/pid 2>/dev/null | xargs -r kill 2>/dev/null; exit 130' INT TERM
mkdir "$tmp/san" "$tmp/scratch"
: >"$tmp/failures"
: >"$tmp/skips"
export SPLITINF="$build/splitinf" BUILD="$build" SCRATCH="$tmp/scratch"
export ASAN_OPTIONS="log_path=$tmp/san/report:detect_stack_use_after_return=1:${ASAN_OPTIONS:-}"
# A leak must not change the exit status: Criterion's runner has one of its own. Its report does count (see theirs).
export LSAN_OPTIONS="exitcode=0:${LSAN_OPTIONS:-}"
export UBSAN_OPTIONS="log_path=$tmp/san/report:print_stacktrace=1:${UBSAN_OPTIONS:-}"
export TSAN_OPTIONS="log_path=$tmp/san/report:exitcode=66:${TSAN_OPTIONS:-}"
# A splitinf must not find the settings of the person who runs the tests.
for v in $(env | sed -n 's/^\(SPLITINF_[A-Z0-9_]*\)=.*/\1/p'); do unset "$v"; done
# Nor take the card of a machine that has one: test/gpu/run.sh is for cards.
export SPLITINF_BACKEND=cpu
export HOME="$tmp/scratch/home"
mkdir -p "$HOME"
passed=0 failed=0 skipped=0 status=0

# limit SECONDS COMMAND...: stdin is empty, a command that hangs is killed. Sets status.
limit() {
    seconds=$1
    shift
    timeout -k 10 "$seconds" "$@" </dev/null &
    child=$!
    wait "$child"
    status=$?
    child=
}

# fail NAME [FILE]: counts a failure; FILE holds what is known about it.
fail() {
    failed=$((failed + 1))
    {
        echo "not ok $1"
        [ -z "${2:-}" ] || tail -n 60 "$2" | sed 's/^/    /'
    } >>"$tmp/failures"
}

# theirs REPORT: every frame of every stack lies in Criterion (which leaks a little in its runner) or in the sanitizer. A
# leak of a test has a frame of ours.
theirs() {
    grep -qE '^ +#[0-9]+ ' "$1" && ! grep -E '^ +#[0-9]+ ' "$1" | grep -qvE 'libcriterion\.so|__interceptor_|libasan|liblsan'
}

# sanitizers NAME: reports that appeared since the last call belong to NAME.
sanitizers() {
    for report in "$tmp"/san/report*; do
        [ -s "$report" ] && ! theirs "$report" && fail "$1: a sanitizer reported" "$report" && n_failed=$((n_failed + 1))
        rm -f "$report"
    done
}

# summary NAME: adds the n_ counters up.
summary() {
    passed=$((passed + n_passed))
    skipped=$((skipped + n_skipped))
    now=$(date +%s)
    printf '%-32s %4d passed, %d failed, %d skipped (%d s)\n' "$1" $n_passed $n_failed $n_skipped $((now - since))
    since=$now
    n_passed=0 n_failed=0 n_skipped=0
}
n_passed=0 n_failed=0 n_skipped=0
since=$(date +%s)

wanted() { case $1 in *"$filter"*) return 0 ;; *) return 1 ;; esac }

run_unit() {
    tap=$tmp/tap suites=
    [ -z "$filter" ] || suites="*$filter*/*"
    # Another compiler shows in arithmetic and in the language's corners; waiting, words and emulated cards gcc's binaries have
    # tested. Sanitizers look at memory, and trees and joined cards touch all that these suites do.
    case $build:$suites in
    *-clang:) suites='!(tok_golden|tok_speed|remote*|cloud*|link|strangers|speculate_remote|bench*|gpu*|emulated_nccl)/*' ;;
    *-debug:) suites='!(gpu_cpu|gpu_exact|gpu_fast)/*' ;;
    esac
    # A warning says that a test could do less than it might; Criterion would fail the run for it.
    limit 1500 "$build/unit" --ignore-warnings --tap="$tap" --timeout 600 ${suites:+--filter "$suites"} >"$tmp/out" 2>&1
    [ -s "$tap" ] || {
        n_failed=1
        fail "unit: the runner ended with status $status and without a report" "$tmp/out"
        summary unit
        return
    }
    sed -n 's/^\[WARN\] /note /p' "$tmp/out" >>"$tmp/skips"
    # A line per skip ("s") and of every failure ("f", then "-" for what is known), at the end the counters ("c").
    awk -v filter="$suites" '
        /^1\.\.[0-9]+/     { plan = substr($0, 4) + 0; next }
        / # SKIP test was skipped$/ && filter { plan--; next }
        /^ok .* # SKIP/    { skipped++; in_fail = 0; sub(/^ok - /, ""); sub(/ +# SKIP /, ": "); print "s skip " $0; next }
        /^ok /             { passed++; in_fail = 0; next }
        /^not ok /         { failed++; in_fail = 1; sub(/^not ok - /, ""); print "f " $0; next }
        in_fail && /^ /    { if ($0 !~ /^  (---|\.\.\.|assertions: .*|failures:)$/) print "- " $0; next }
        END                { printf "c %d %d %d %d\n", passed, failed, skipped, plan }' "$tap" >"$tmp/unit"
    while IFS= read -r line; do
        case $line in
        's '*) echo "${line#s }" >>"$tmp/skips" ;;
        'f '*) fail "${line#f }" ;;
        '- '*) echo "  ${line#- }" >>"$tmp/failures" ;;
        'c '*)
            # shellcheck disable=SC2086 # four numbers
            set -- ${line#c }
            n_passed=$1 n_failed=$2 n_skipped=$3
            lost=$(($4 - $1 - $2 - $3))
            ;;
        esac
    done <"$tmp/unit"
    if [ "$lost" != 0 ]; then
        n_failed=$((n_failed + 1))
        fail "unit: $lost tests have no result (status $status)" "$tmp/out"
    elif [ $status != 0 ] && [ $n_failed = 0 ]; then
        n_failed=$((n_failed + 1))
        fail "unit: the runner ended with status $status although every test passed" "$tmp/out"
    elif [ $n_failed != 0 ]; then
        { echo "what the unit tests printed:"; tail -n 100 "$tmp/out" | sed 's/^/    /'; } >>"$tmp/failures"
    fi
    sanitizers unit
    summary unit
}

run_replay() { # NAME
    corpus=test/fuzz/corpus/$1
    if [ -z "$(find "$corpus" -type f 2>/dev/null | head -n 1)" ]; then
        n_failed=1
        fail "replay $1: $corpus has no file"
    else
        limit 600 "$build/replay_$1" "$corpus" >"$tmp/out" 2>&1
        if [ $status = 0 ]; then
            n_passed=1
        else
            n_failed=1
            fail "replay $1: ended with status $status" "$tmp/out"
        fi
    fi
    sanitizers "replay $1"
    summary "replay $1"
}

# Scripts wait more than they compute, so two run at a time, each with a scratch folder and sanitizers' reports of its own.
start_script() { # PATH
    name=${1##*/}
    own=$tmp/scripts/${name%.sh}
    mkdir -p "$own/scratch/home" "$own/san"
    if [ -x "$1" ]; then set -- "$1"; else set -- sh "$1"; fi
    (
        export SCRATCH="$own/scratch" HOME="$own/scratch/home"
        for v in ASAN_OPTIONS UBSAN_OPTIONS TSAN_OPTIONS; do
            eval "export $v=\"log_path=$own/san/report:\${$v#*:}\""
        done
        timeout -k 10 900 "$@" >"$own/out" 2>"$own/err" </dev/null &
        echo $! >"$own/pid"
        wait $!
        echo $? >"$own/status"
    ) &
}

end_script() { # PATH, of one that is over
    name=${1##*/}
    name=${name%.sh} own=$tmp/scripts/${name%.sh}
    status=$(cat "$own/status" 2>/dev/null || echo 255)
    while IFS= read -r line; do
        case $line in
        'not ok'*) n_failed=$((n_failed + 1)) ; fail "$name: ${line#not ok }" ;;
        'ok '*) n_passed=$((n_passed + 1)) ;;
        'skip '*) n_skipped=$((n_skipped + 1)) ; echo "skip $name: ${line#skip }" >>"$tmp/skips" ;;
        esac
    done <"$own/out"
    cat "$own/err" >>"$own/out"
    if [ "$status" != 0 ] && [ $n_failed = 0 ]; then
        n_failed=1
        fail "$name: ended with status $status" "$own/out"
    elif [ $((n_passed + n_failed + n_skipped)) = 0 ]; then
        n_failed=1
        fail "$name: printed no result" "$own/out"
    elif [ $n_failed != 0 ]; then
        { echo "what $name printed:"; tail -n 60 "$own/out" | sed 's/^/    /'; } >>"$tmp/failures"
    fi
    mv "$own"/san/report* "$tmp/san/" 2>/dev/null
    sanitizers "$name"
    summary "e2e $name"
    rm -rf "$own"
}

run_unit
# What has one thread only is not run under ThreadSanitizer, and what tests ./build.sh and the sources not with another binary.
leave_out() {
    case $build:$1 in
    *-tsan:test/fuzz/* | *-tsan:*/cli_usage.sh | *-tsan:*/readme_synopsis.sh | *-tsan:*/identity.sh) return 0 ;;
    # chat_terminal, serve_cloud, split_load and the unit tests run the same threads; gcc's binary ran these
    *-tsan:*/split.sh | *-tsan:*/chat_oneshot.sh | *-tsan:*/chat_store.sh | *-tsan:*/chat_draft.sh | *-tsan:*/verify_modes.sh) return 0 ;;
    # nvcc's code does not depend on how the tests around it were compiled
    *-tsan:*/gpu_ptx.sh | *-debug:*/gpu_ptx.sh) return 0 ;;
    # what these run, unit tests have run under AddressSanitizer
    *-debug:*/gpu_split.sh | *-debug:*/chat_store.sh) return 0 ;;
    *-tsan:*/bench.sh | *-tsan:*_wan.sh | *-clang:*.sh) return 0 ;;
    *-tsan:*/build_*.sh | *-debug:*/build_*.sh | *-tsan:*/gpu_rehearse.sh | *-debug:*/gpu_rehearse.sh) return 0 ;;
    *) return 1 ;;
    esac
}
for target in test/fuzz/fuzz_*.c; do
    name=${target##*/fuzz_}
    name=${name%.c}
    leave_out "$target" && continue
    [ -f "$target" ] && wanted "$name" && run_replay "$name"
done
running=
for script in test/e2e/*.sh ''; do
    if [ -n "$script" ]; then
        leave_out "$script" && continue
        [ -f "$script" ] && wanted "$script" || continue
        start_script "$script"
        running="$running $script"
    fi
    # shellcheck disable=SC2086 # paths without spaces
    set -- $running
    while [ $# -gt 1 ] || { [ -z "$script" ] && [ $# -gt 0 ]; }; do
        running=
        for other; do
            if [ -s "$tmp/scripts/$(basename "$other" .sh)/status" ]; then end_script "$other"; else running="$running $other"; fi
        done
        # shellcheck disable=SC2086
        set -- $running
        [ $# -lt 2 ] && [ -n "$script" ] || [ $# = 0 ] || sleep 0.1
    done
done

[ ! -s "$tmp/skips" ] || { echo; cat "$tmp/skips"; }
[ ! -s "$tmp/failures" ] || { echo; cat "$tmp/failures"; echo; }
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ] && [ "$passed" != 0 ]
