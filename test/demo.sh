#!/bin/sh
# What splitinf is for, on one machine: a cloud process and a client process, each with a key of its own, TLS between them,
# and an emulated round trip of 80 ms. Run by ./build.sh demo, which has built ./splitinf.
set -eu
cd "$(dirname -- "$0")/.."
model=test/models/tiny prompt="Tell me a story about a fox." rtt=80
dir=$(mktemp -d)
cloud=
finish() {
    [ -z "$cloud" ] || { kill "$cloud" 2>/dev/null && wait "$cloud" 2>/dev/null || :; }
    rm -rf "$dir"
}
trap finish EXIT
trap 'exit 130' INT TERM
say() { printf '%s\n' "$*"; }

client_pin=$(./splitinf identity --home "$dir/client")
say "The trusted machine has a key; its pin is what the rented machine is told to allow:"
say "  \$ splitinf identity"
say "  $client_pin"
say
say "The rented machine loads layers 2 to 5 of 8 and nothing else, and serves that one pin:"
say "  \$ splitinf serve-cloud --model $model --allow $client_pin"
./splitinf serve-cloud --model $model --home "$dir/cloud" --listen 127.0.0.1:0 --allow "$client_pin" --kv-mem 64M \
    >"$dir/ready" 2>"$dir/log" </dev/null &
cloud=$!
n=0
until [ -s "$dir/ready" ]; do
    n=$((n + 1))
    [ $n -lt 300 ] && kill -0 $cloud 2>/dev/null || { say "the cloud did not start:"; cat "$dir/log"; exit 1; }
    sleep 0.1
done
address=$(sed 's/^ready \(.*\) pin .*/\1/' "$dir/ready")
pin=$(sed 's/.* pin //' "$dir/ready")
say "  $(cat "$dir/ready")"
say
set -- --model $model --prompt "$prompt" --max-tokens 120 --temperature 0
say "A chat over TLS 1.3 with both pins checked, behind an emulated link of $rtt ms:"
say "  \$ splitinf chat --cloud $address --pin $pin \\"
say "        --model $model --prompt \"$prompt\""
say
./splitinf chat "$@" --home "$dir/client" --cloud "$address" --pin "$pin" --link-rtt $rtt --stats \
    2>"$dir/stats" </dev/null | tee "$dir/split" | fold -s -w 100
say
say
grep -E '^(prompt|answer|cloud|link)' "$dir/stats" | sed 's/^/  /'
say
./splitinf chat "$@" --home "$dir/client" --local --codec f16 --quiet >"$dir/alone" </dev/null
if cmp -s "$dir/split" "$dir/alone"; then
    say "The text equals the one that the model gives alone on this machine ($(wc -c <"$dir/alone") bytes)."
else
    say "The text DIFFERS from the one that the model gives alone on this machine:"
    cat "$dir/alone"
    exit 1
fi
say
say "And not only the text. Every bit of the logits, drawn tokens too, and the cloud's layers held against our own:"
say "  \$ splitinf verify --cloud $address --pin $pin --model $model --audit 2"
./splitinf verify --model $model --home "$dir/client" --cloud "$address" --pin "$pin" --tokens 24 --audit 2 >"$dir/verify" ||
    { cat "$dir/verify"; exit 1; }
sed 's/^/  /' "$dir/verify"
say
say "What the cloud wrote about it (never content):"
grep -E 'event=(created|ended)' "$dir/log" | head -n 2 | cut -c 1-150 | sed 's/^/  /'
