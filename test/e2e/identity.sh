#!/bin/sh
# splitinf identity: the pin, the files behind it, and what it refuses.
. test/lib.sh
out=$SCRATCH/out err=$SCRATCH/err home=$SCRATCH/identity

run() { "$SPLITINF" identity "$@" >"$out" 2>"$err" </dev/null; status=$?; }
is_pin() { [ "$(wc -l <"$1")" = 1 ] && grep -qxE 'sha256:[A-Za-z0-9_-]{43}' "$1"; }

first() {
    run --home "$home/a/b"
    [ $status = 0 ] && [ ! -s "$err" ] && is_pin "$out" && cp "$out" "$SCRATCH/pin" &&
        [ "$(stat -c %a "$home/a") $(stat -c %a "$home/a/b") $(stat -c %a "$home/a/b/key.pem")" = "700 700 600" ]
}
check "the first use makes a key and prints its pin and nothing else" first
again() { run --home "$home/a/b" && [ $status = 0 ] && cmp "$out" "$SCRATCH/pin"; }
check "the second use prints the same pin" again
json() { run --home "$home/a/b" --json && [ "$(cat "$out")" = "{\"pin\":\"$(cat "$SCRATCH/pin")\"}" ]; }
check "--json" json
at_home() {
    HOME=$home/person "$SPLITINF" identity >"$out" 2>"$err" && is_pin "$out" && [ -f "$home/person/.splitinf/key.pem" ]
}
mkdir -p "$home/person"
check "without --home it lies in ~/.splitinf" at_home
homeless() { env -u HOME "$SPLITINF" identity >"$out" 2>"$err"; [ $? = 2 ] && has "$err" "--home DIR"; }
check "without HOME it asks for --home" homeless
same_as_openssl() {
    openssl x509 -in "$home/a/b/cert.pem" -pubkey -noout | openssl pkey -pubin -outform der |
        openssl dgst -sha256 -binary | base64 | tr '+/' '-_' | tr -d '=' | sed 's/^/sha256:/' >"$out"
    cmp "$out" "$SCRATCH/pin"
}
if command -v openssl >/dev/null; then
    check "openssl finds the same pin in the certificate" same_as_openssl
else
    echo "skip openssl finds the same pin in the certificate: there is no openssl"
fi
open_key() {
    chmod 644 "$home/a/b/key.pem"
    run --home "$home/a/b"
    chmod 600 "$home/a/b/key.pem"
    [ $status = 1 ] && [ ! -s "$out" ] && has "$err" "chmod 600 $home/a/b/key.pem"
}
check "a key that others can read is refused, with the way to mend it" open_key
full_disk() { "$SPLITINF" identity --home "$home/a/b" >/dev/full 2>"$err"; [ $? = 1 ] && has "$err" "No space left"; }
if [ -w /dev/full ]; then
    check "a pin that could not be written is a failure" full_disk
else
    echo "skip a pin that could not be written is a failure: there is no /dev/full"
fi
