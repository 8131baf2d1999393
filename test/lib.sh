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
