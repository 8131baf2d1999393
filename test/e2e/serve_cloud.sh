#!/bin/sh
# splitinf serve-cloud as a program: the ready line, what it refuses before it starts, whom it refuses afterwards, signals.
. test/lib.sh
out=$SCRATCH/out err=$SCRATCH/err model=test/models/tiny home=$SCRATCH/cloud_home
server=
trap '[ -z "$server" ] || kill -9 "$server" 2>/dev/null' EXIT
pin=$("$SPLITINF" identity --home "$SCRATCH/client_home")
other=$("$SPLITINF" identity --home "$SCRATCH/other_home")

# What is refused before anything is loaded.
refused() { # STATUS TEXT OPTION...
    want=$1 text=$2
    shift 2
    timeout 60 "$SPLITINF" serve-cloud "$@" >"$out" 2>"$err" </dev/null
    status=$?
    [ $status = "$want" ] || { echo "status $status" >&2; cat "$err" >&2; return 1; }
    [ ! -s "$out" ] && has "$err" "$text"
}
check "no model" refused 2 "--model is needed" --allow "$pin"
check "nobody allowed: says where the pin comes from" refused 2 'splitinf identity' --model $model
check "a pin that is none" refused 2 "--allow" --model $model --home "$home" --allow sha256:short
check "an allow file that is not there" refused 1 "/nonexistent/pins" --model $model --home "$home" --allow-file /nonexistent/pins
check "an address that is none" refused 2 "HOST:PORT" --model $model --home "$home" --allow "$pin" --listen 7433
check "no layers left" refused 2 "none is left" --model $model --home "$home" --allow "$pin" --front 4 --back 4
check "more memory than allowed" refused 1 "--memory" --model $model --home "$home" --allow "$pin" --memory 1M
check "more context than the model has" refused 2 "--max-ctx" --model $model --home "$home" --allow "$pin" --max-ctx 100000

# await FILE TEXT: until FILE holds TEXT.
await() {
    n=0
    until grep -qF -e "$2" "$1"; do
        n=$((n + 1))
        [ $n -lt 600 ] || { echo "$1 does not get: $2" >&2; cat "$1" >&2; return 1; }
        sleep 0.05
    done
}
start() { # OPTION...
    : >"$out"
    : >"$err"
    "$SPLITINF" serve-cloud --model "$model" --home "$home" --listen 127.0.0.1:0 --kv-mem 8M "$@" >"$out" 2>"$err" </dev/null &
    server=$!
    await "$out" ready || { kill -9 $server; server=; return 1; }
    port=$(sed -n 's/^ready 127\.0\.0\.1:\([0-9]*\) pin .*/\1/p' "$out")
}
ends() { # STATUS
    wait "$server"
    status=$?
    server=
    [ $status = "$1" ] || { echo "status $status instead of $1" >&2; cat "$err" >&2; return 1; }
}

printf '%s laptop\n' "$pin" >"$SCRATCH/pins"
one_line() {
    start --allow-file "$SCRATCH/pins" --metrics 127.0.0.1:0 && [ "$(wc -l <"$out")" = 1 ] &&
        grep -qxE 'ready 127\.0\.0\.1:[1-9][0-9]* pin sha256:[A-Za-z0-9_-]{43}' "$out" &&
        [ "$("$SPLITINF" identity --home "$home")" = "$(sed 's/.* pin //' "$out")" ]
}
check "one line when ready, with the port and the pin" one_line
log_format() { await "$err" event=ready && ! grep -vE '^[0-9-]{10}T[0-9:]{8}\.[0-9]{3}Z (error|warn|info|debug) ' "$err" >&2; }
check "each line of the log has its time and level" log_format
taken() { refused 1 "127.0.0.1:$port" --model $model --home "$home" --allow "$pin" --listen "127.0.0.1:$port"; }
cp "$err" "$SCRATCH/server_err"
check "an address that is taken is found out before the model is read" taken

# knock HOME: a TLS client with the key of HOME; what it hears is in $SCRATCH/knock.
knock() {
    (sleep 1; :) | timeout 20 openssl s_client -connect "127.0.0.1:$port" -tls1_3 -alpn splitinf/1 -cert "$1/cert.pem" \
        -key "$1/key.pem" >"$SCRATCH/knock" 2>&1
    :
}
# From here on the log of the server that runs has another name: $err was used again.
restart() {
    kill -9 "$server" 2>/dev/null
    wait "$server" 2>/dev/null
    start --allow-file "$SCRATCH/pins" --metrics 127.0.0.1:0
}
check "SIGKILL leaves nothing behind that would stop the next start" restart
strangers() { knock "$SCRATCH/other_home" && await "$err" "refused pin=$other peer=127.0.0.1:"; }
known() { knock "$SCRATCH/client_home" && await "$err" "conn event=open peer=127.0.0.1:" && has "$err" "pin=$pin"; }
added() {
    printf '%s two\n' "$other" >>"$SCRATCH/pins"
    kill -HUP "$server"
    await "$err" "allow event=reloaded pins=2" && knock "$SCRATCH/other_home" &&
        await "$err" "conn event=open" && grep "conn event=open" "$err" | grep -qF "pin=$other"
}
if command -v openssl >/dev/null; then
    check "a stranger is refused, and his pin is logged" strangers
    check "a client whose pin is in the file gets in" known
    check "SIGHUP lets the stranger in who was added" added
else
    echo "skip refusals: there is no openssl"
fi
health() {
    await "$err" event=ready && metrics=$(sed -n 's/.*event=ready .*metrics_port=\([0-9]*\) .*/\1/p' "$err")
    [ "$(curl -s "http://127.0.0.1:$metrics/health")" = '{"status":"ok"}' ] &&
        curl -s "http://127.0.0.1:$metrics/metrics" | grep -q '^splitinf_build_info{version="[0-9.]*",backend="'"${SPLITINF_BACKEND:-cpu}-"
}
if command -v curl >/dev/null; then
    check "/health and /metrics" health
else
    echo "skip /health and /metrics: there is no curl"
fi
drains() { kill -TERM "$server" && ends 0 && has "$err" "event=draining" "event=stopped"; }
check "SIGTERM ends it with status 0" drains
interrupted() { start --allow "$pin" --json && has "$out" '{"ready":"127.0.0.1:' '"pin":"sha256:' && kill -INT "$server" && ends 0; }
check "--json, and Ctrl-C ends it with status 0" interrupted
quiet() { start --allow "$pin" --quiet && kill -TERM "$server" && ends 0 && [ ! -s "$err" ]; }
check "--quiet says nothing but the ready line" quiet

# Only the middle.
exported() {
    timeout 60 "$SPLITINF" serve-cloud --model $model --export-middle "$SCRATCH/middle" >"$SCRATCH/export" 2>&1 </dev/null &&
        [ ! -e "$SCRATCH/middle/tokenizer.json" ] && ! grep -qaE 'embed_tokens|lm_head|layers\.0\.' "$SCRATCH/middle/model.safetensors"
}
check "--export-middle writes the middle and nothing else" exported
from_export() { (model=$SCRATCH/middle; start --allow "$pin" && kill -TERM "$server" && ends 0); }
check "and serves from it" from_export
