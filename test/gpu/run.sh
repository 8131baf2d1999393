#!/bin/sh
# Everything that a machine with an NVIDIA card can show, in one go: build, check, measure, one table. Each step is a line
# "PASS|FAIL|SKIP NAME (SECONDS s) DETAIL"; a step that needs what is not there is skipped with the reason, so it runs to its
# end on any machine. Exit status 1 when a step failed; a goal that was missed is no failure, but a MISS in the table. Written to
# OUT (default gpu-report): what each step printed, the measurements, and report.md, which --record puts into docs/performance.md.
#
#   test/gpu/run.sh [--out OUT] [--device N] [--only STEP,...] [--replay FILE --tokenizer FILE|DIR [--prime FILE]] [--record]
#                   [--quick] [--rehearse]
#
# Steps: build, card, unit, memcheck, racecheck, initcheck, verify, beside-cpu, faults, kernels, overlap, torch, split-80ms,
# sessions. build and card are made in any case when others are named.
#   --replay FILE      recorded answers (JSON lines of prompt and output) that split-80ms follows, of Mistral 7B or another model
#                      with the tokenizer of --tokenizer; --prime FILE: others, which fill the store of phrases first
#   --quick            fewer models, shorter measurements
#   --record           into docs/performance.md, from a real card only
#   --rehearse         every step on the emulated card that SPLITINF_LIBCUDA names (build/libcuda-emu.so), with tiny models, and fakes
#                      of what no machine without a card has: shows that the steps run, and nothing else; never recorded
# Environment: BUILD=DIR; BUILT=1: it was built before, elsewhere maybe; PYTHON=python3 with torch and transformers.
# SPLITINF_LIBCUDA=LIBRARY without --rehearse: the checks on an emulated card, no measurements.
set -u
cd "$(dirname -- "$0")/../.." || exit 2
export LC_ALL=C.UTF-8
out=gpu-report device=0 only='' replay='' prime='' tokenizer='' record='' quick='' rehearse=
while [ $# -gt 0 ]; do
    case $1 in
    --out | --device | --only | --replay | --prime | --tokenizer)
        [ $# -gt 1 ] || { echo "test/gpu/run.sh: $1 needs a value" >&2; exit 2; }
        case $1 in
        --out) out=$2 ;; --device) device=$2 ;; --only) only=$2 ;; --replay) replay=$2 ;; --prime) prime=$2 ;; --tokenizer) tokenizer=$2 ;;
        esac
        shift 2
        ;;
    --record) record=1; shift ;;
    --quick) quick=1; shift ;;
    --rehearse) rehearse=1; shift ;;
    *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done
all_steps=" build card unit memcheck racecheck initcheck verify beside-cpu faults kernels overlap torch split-80ms sessions "
for name in $(echo "$only" | tr ',' ' '); do
    case $all_steps in *" $name "*) ;; *) echo "test/gpu/run.sh: --only $name: the steps are$all_steps" >&2; exit 2 ;; esac
done
for file in "$replay" "$prime" "$tokenizer"; do
    [ -z "$file" ] || [ -r "$file" ] || { echo "test/gpu/run.sh: $file cannot be read" >&2; exit 2; }
done
[ -z "$replay" ] || [ -n "$tokenizer" ] || { echo "test/gpu/run.sh: --replay needs the --tokenizer of the model that answered" >&2; exit 2; }
emulated=${SPLITINF_LIBCUDA:+1}
[ -z "$rehearse" ] || [ -n "$emulated" ] || { echo "test/gpu/run.sh: --rehearse is for the card that SPLITINF_LIBCUDA names" >&2; exit 2; }
build=${BUILD:-build} jobs=$(nproc 2>/dev/null || echo 2)
case $build in /*) ;; *) build=$PWD/$build ;; esac
mkdir -p "$out" && out=$(CDPATH='' cd -- "$out" && pwd) || exit 2
scratch=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM
python=${PYTHON:-python3} # before HOME goes: what a user installed is below it
user_site=$("$python" -m site --user-site 2>/dev/null)
export PYTHONPATH="${PYTHONPATH:-}${user_site:+${PYTHONPATH:+:}$user_site}"
export SPLITINF="$build/splitinf" BUILD="$build" HOME="$scratch/home"
mkdir "$HOME"
: >"$out/table"
: >"$out/goals"
n_failed=0

# step NAME FUNCTION: status 77 is a skip. What a step wants to say stands in $said.
step() {
    case ",${only:-$1},build,card," in *",$1,"*) ;; *) return 0 ;; esac
    since=$(date +%s) said=
    "$2" >"$out/$1.log" 2>&1
    case $? in 0) what=PASS ;; 77) what=SKIP ;; *) what=FAIL n_failed=$((n_failed + 1)) ;; esac
    printf '%s %-14s (%d s) %s\n' $what "$1" $(($(date +%s) - since)) "$said" | tee -a "$out/table"
    [ $what != FAIL ] || tail -n 15 "$out/$1.log" | sed 's/^/    /'
}
skip() { said=$*; return 77; }
needs_card() { [ -n "$card" ] || { said="no card: $why"; return 1; }; }
needs_real() { needs_card && { [ -z "$emulated" ] || [ -n "$rehearse" ] || { said="not on an emulated card"; return 1; }; }; }
# goal WHAT GOAL MEASURED [MET]: a line of the report. MET: a command that says whether the goal is met; none: there is no goal.
goal() {
    what_it_is=$1 wanted=$2 measured=$3
    shift 3
    if [ $# = 0 ]; then met=-; elif "$@"; then met=PASS; else met=MISS; fi
    echo "| $what_it_is | $wanted | $measured | $met |" >>"$out/goals"
}
below() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a != "" && a != "null" && a + 0 < b + 0) }'; }

. test/gpu/steps/rehearse.sh
. test/gpu/steps/build.sh
. test/gpu/steps/checks.sh
. test/gpu/steps/measures.sh

report() {
    [ -z "$rehearse" ] || { echo "**A rehearsal on an emulated card: no figure here means anything.**"; echo; }
    echo "Card: ${card:-none}. Date: $(date -u +%Y-%m-%d). Commit: $(git describe --always --dirty --abbrev=12 --exclude '*' 2>/dev/null || echo unknown)."
    if [ -s "$out/goals" ]; then
        echo
        echo '| what | goal | measured | |'
        echo '|---|---|---|---|'
        cat "$out/goals"
    fi
    echo
    echo '| step | result | |'
    echo '|---|---|---|'
    sed 's/^\([A-Z]*\) \([a-z0-9_-]*\) *(\([0-9]* s\)) *\(.*\)/| \2 | \1, \3 | \4 |/' "$out/table"
    for file in distances.txt passes.txt products.txt split.txt sessions.txt; do
        [ ! -s "$out/$file" ] || { echo; echo '```'; cat "$out/$file"; echo '```'; }
    done
}

rm -f "$out"/*.txt "$out"/*.json
step build build_all
[ -x "$SPLITINF" ] || { echo "there is no $SPLITINF: nothing can be done" >&2; exit 1; }
step card find_card
step unit unit_tests
step memcheck memcheck
step racecheck racecheck
step initcheck initcheck
step verify verify_itself
step beside-cpu beside_cpu
step faults faults
step torch versus_torch # kernels puts its figures beside its own
step kernels kernels
step overlap overlap
step split-80ms split_80ms
step sessions sessions
report >"$out/report.md"
[ ! -s "$out/goals" ] || { echo; cat "$out/goals"; }
if [ -n "$record" ] && [ -n "$card" ] && [ -z "$emulated" ]; then
    awk -v file="$out/report.md" '/<!-- measured: begin -->/ { print; while ((getline line < file) > 0) print line; cut = 1; next }
        /<!-- measured: end -->/ { cut = 0 } !cut' docs/performance.md >"$scratch/new" && cp "$scratch/new" docs/performance.md
fi
echo "$(grep -c ^PASS "$out/table") passed, $n_failed failed, $(grep -c ^SKIP "$out/table") skipped; $out/report.md"
[ $n_failed = 0 ]
