#!/bin/sh
# The kernel's own TCP between two network namespaces (test/tools/tun_wan.c), of which other tests make a wide area network:
# its delay, its rate, its losses and its ends are what they should be.
. test/lib.sh

for tool in tun_wan tcp_echo; do
    ${CC:-cc} -std=c11 -D_GNU_SOURCE -O1 -o "$SCRATCH/$tool" test/tools/$tool.c -lm || { echo "not ok $tool does not compile"; exit 1; }
done
cd "$SCRATCH" || exit 1

./tun_wan --rtt 0 true true 2>why
status=$?
if [ $status = 77 ]; then
    echo "skip tun_wan: not permitted here: $(head -n 1 why)"
    exit 0
fi
[ $status = 0 ] || { cat why >&2; echo "not ok tun_wan starts"; exit 1; }

# echo_over OPTIONS COUNT BYTES: sets connect and echo, in ms.
echo_over() {
    # shellcheck disable=SC2086 # several options
    timeout 60 ./tun_wan $1 "exec ./tcp_echo 7000" "./tcp_echo 10.77.0.1 7000 $2 $3" >out || return 1
    read -r _ connect _ echo <out
    echo "over $1: connect $connect ms, $3 bytes there and back $echo ms" >&2
}
between() { awk -v x="$1" -v lo="$2" -v hi="$3" 'BEGIN { exit !(x >= lo && x < hi) }'; }

# Upper bounds are for the best of several, and wide: the machine may be busy.
round_trip() { echo_over "--rtt 80" 10 1 && between "$connect" 80 1000 && between "$echo" 80 110; }
check "a round trip takes 80 ms, and a connection one more" round_trip
rate() { echo_over "--rtt 20 --mbit 20" 2 1000000 && between "$echo" 420 30000; }
check "1 MB at 20 Mbit/s is not faster than that" rate
losses() { echo_over "--rtt 10 --loss 3 --seed 1" 3 100000 && between "$echo" 10 60000; }
check "what is lost is sent again" losses
ends() {
    timeout 30 ./tun_wan --rtt 1 'sleep 1000' 'exit 7'
    [ $? = 7 ]
}
check "the client's end is the server's, its status ours" ends
