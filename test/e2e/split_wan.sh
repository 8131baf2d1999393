#!/bin/sh
# serve-cloud and chat on two machines with a wide area network between them: two network namespaces, the kernel's own TCP,
# 80 ms, a rate, and packets that get lost (test/tools/tun_wan.c). The text is that of the model alone.
. test/lib.sh
model=test/models/tiny prompt="Tell me a story about a fox."

${CC:-cc} -std=c11 -D_GNU_SOURCE -O1 -o "$SCRATCH/tun_wan" test/tools/tun_wan.c -lm || { echo "not ok tun_wan does not compile"; exit 1; }
"$SCRATCH/tun_wan" --rtt 0 true true 2>"$SCRATCH/why"
status=$?
if [ $status = 77 ]; then
    echo "skip split_wan: not permitted here: $(head -n 1 "$SCRATCH/why")"
    exit 0
fi
[ $status = 0 ] || { cat "$SCRATCH/why" >&2; echo "not ok tun_wan starts"; exit 1; }

pin=$("$SPLITINF" identity --home "$SCRATCH/client")
cloud_pin=$("$SPLITINF" identity --home "$SCRATCH/cloud")

# The two ends, run by tun_wan. The client waits until the server listens.
cat >"$SCRATCH/server" <<END
exec "$SPLITINF" serve-cloud --model $model --home "$SCRATCH/cloud" --listen 10.77.0.1:7433 --allow $pin --kv-mem 16M \
    >"$SCRATCH/ready" 2>"$SCRATCH/log" </dev/null
END
cat >"$SCRATCH/client.sh" <<END
n=0
until grep -q ready "$SCRATCH/ready"; do
    n=\$((n + 1))
    [ \$n -lt 1200 ] || { cat "$SCRATCH/log" >&2; exit 1; }
    sleep 0.05
done
exec "$SPLITINF" chat --model $model --home "$SCRATCH/client" --cloud 10.77.0.1:7433 --pin $cloud_pin --prompt "$prompt" "\$@" </dev/null
END

# over WAN OPTION...: the answer over such a network equals the one of the model alone.
over() {
    wan=$1
    shift
    : >"$SCRATCH/ready"
    # shellcheck disable=SC2086 # several options
    timeout 300 "$SCRATCH/tun_wan" $wan "sh $SCRATCH/server" "sh $SCRATCH/client.sh $*" >"$SCRATCH/split" 2>"$SCRATCH/err" ||
        { cat "$SCRATCH/err" "$SCRATCH/log" >&2; return 1; }
    "$SPLITINF" chat --model $model --local --codec f16 --prompt "$prompt" "$@" </dev/null >"$SCRATCH/alone" || return 1
    [ -s "$SCRATCH/alone" ] && cmp "$SCRATCH/split" "$SCRATCH/alone"
}
check "the text over 80 ms is that of the model alone" over "--rtt 80" --quiet --max-tokens 40
drawn="--quiet --max-tokens 40 --temperature 0.8 --top-p 0.95 --seed 7"
# shellcheck disable=SC2086 # several options
check "and when packets get lost and the rate is low" over "--rtt 40 --mbit 5 --loss 2 --seed 3" $drawn --chunk 7
round_trip() {
    : >"$SCRATCH/ready"
    timeout 300 "$SCRATCH/tun_wan" --rtt 80 "sh $SCRATCH/server" "sh $SCRATCH/client.sh --json --max-tokens 3" >"$SCRATCH/json" 2>"$SCRATCH/err" ||
        { cat "$SCRATCH/err" >&2; return 1; }
    sed -n 's/.*"rtt_ms":\([0-9.]*\).*/\1/p' "$SCRATCH/json" | awk '{ exit !($1 >= 80 && $1 < 200) }' || { cat "$SCRATCH/json" >&2; return 1; }
}
check "the client measures that round trip" round_trip
