# For the scripts in test/e2e: one line per test on standard output, as test/run.sh reads them.
# check NAME COMMAND...: the test passes when the command does.
check() {
    name=$1
    shift
    if "$@"; then echo "ok $name"; else echo "not ok $name"; fi
}

# has FILE TEXT...: FILE holds each of these texts.
has() {
    file=$1
    shift
    for text; do
        grep -qF -e "$text" "$file" || { echo "$file does not hold: $text" >&2; sed 's/^/  | /' "$file" >&2; return 1; }
    done
}

# serve MODEL PIN [OPTION...]: a cloud of its own on 127.0.0.1, for that pin. Sets $server, its pid, which the caller stops, and
# where it is: $at and $cloud, its pin.
# shellcheck disable=SC2034 # for the caller
serve() {
    model=$1 client=$2 n=0
    shift 2
    : >"$SCRATCH/ready"
    "$SPLITINF" serve-cloud --home "$SCRATCH/cloud" --allow "$client" --model "$model" --listen 127.0.0.1:0 "$@" \
        >"$SCRATCH/ready" 2>"$SCRATCH/log" </dev/null &
    server=$!
    until grep -q ready "$SCRATCH/ready"; do
        n=$((n + 1))
        [ $n -lt 1200 ] || { cat "$SCRATCH/log" >&2; echo "not ok the cloud starts"; exit 1; }
        sleep 0.05
    done
    at=$(sed 's/^ready \(.*\) pin .*/\1/' "$SCRATCH/ready") cloud=$(sed 's/.* pin //' "$SCRATCH/ready")
}
