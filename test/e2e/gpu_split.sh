#!/bin/sh
# shellcheck disable=SC2154 # serve sets $server, $at, $cloud
# The split with a cloud that computes on cards, which are emulated here (test/gpu/emu): it says what the model alone says on a
# card, one or two make no difference, joined or not; a card that is too small is told, and one that fails in mid-service holds up
# nobody.
. test/lib.sh
out=$SCRATCH/out err=$SCRATCH/err model=test/models/tiny
library=$BUILD/libcuda-emu.so
[ -e "$library" ] || { echo "skip a cloud with cards: $library was not built"; exit 0; }
server=
trap '[ -z "$server" ] || kill -9 "$server" 2>/dev/null' EXIT
pin=$("$SPLITINF" identity --home "$SCRATCH/client")
export SPLITINF_LIBCUDA="$library" SPLITINF_LIBNCCL="$library" SPLITINF_BACKEND=cuda
set -- --home "$SCRATCH/client" --model $model --quiet --max-tokens 16 --prompt "Tell me a story about a fox."

stop() { kill "$server" 2>/dev/null; wait "$server" 2>/dev/null; server=; }
split() { timeout 300 "$SPLITINF" chat --cloud "$at" --pin "$cloud" "$@" </dev/null >"$out" 2>"$err"; }

serve $model "$pin" --kv-mem 4M
check "a cloud says that it computes on a card" has "$SCRATCH/log" "computing on Emulated card 0"
"$SPLITINF" chat --local --codec f16 "$@" </dev/null >"$SCRATCH/alone"
equal() { split "$@" && [ -s "$out" ] && cmp "$out" "$SCRATCH/alone" || { cat "$err" >&2; return 1; }; }
check "its text is that of the model alone on a card" equal "$@"
cpu_front() { SPLITINF_BACKEND=cpu split "$@" && [ -s "$out" ] || { cat "$err" >&2; return 1; }; }
check "a client without a card has an answer, too" cpu_front "$@"
stop

# Keys and values in fp8: agreed on by both sides, and the same numbers with the edges on a card or on the CPU.
echo "Once there was a fox" >"$SCRATCH/one"
serve $model "$pin" --kv-mem 4M --kv fp8
"$SPLITINF" chat --local --codec f16 --kv fp8 "$@" </dev/null >"$SCRATCH/alone"
check "with --kv fp8 its text is that of the model alone on a card" equal --kv fp8 "$@"
f16_client() { ! split "$@" && has "$err" "fp8 on the cloud, f16 wanted by the client" "--kv"; }
check "a client that wants f16 is refused, with what to do" f16_client "$@"
fp8_audit() {
    timeout 300 "$SPLITINF" verify --home "$SCRATCH/client" --model $model --cloud "$at" --pin "$cloud" --backend cpu --kv fp8 \
        --tokens 2 --audit 2 --prompts "$SCRATCH/one" >"$out" 2>"$err" && has "$out" "one by 100 times as much" || { cat "$out" "$err" >&2; return 1; }
}
check "verify on the CPU finds the same, and audits it" fp8_audit
stop

EMU_DEVICES=3 serve $model "$pin" --kv-mem 4M --device 2,0
two() {
    timeout 300 "$SPLITINF" verify --home "$SCRATCH/client" --model $model --cloud "$at" --pin "$cloud" --tokens 2 --audit 1 \
        --prompts "$SCRATCH/one" >"$out" 2>"$err" && has "$out" "answers of the split (codec f16) equal" || { cat "$err" >&2; return 1; }
    has "$SCRATCH/log" "Emulated card 2" "Emulated card 0"
}
check "with two cards, every bit is that of one: verify, with an audit" two
stop
EMU_DEVICES=3 serve $model "$pin" --kv-mem 4M --device 2+0
joined() { two && has "$SCRATCH/log" "Emulated card 2, 1 GB + Emulated card 0, 1 GB, joined"; }
check "with two that compute every layer together as well" joined
stop

serve $model "$pin" --kv-mem 4M --math fast
fast() {
    timeout 300 "$SPLITINF" verify --home "$SCRATCH/client" --model $model --cloud "$at" --pin "$cloud" --tokens 2 --audit 1 \
        --prompts "$SCRATCH/one" --backend cpu >"$out" 2>"$err" && has "$out" "computes with cuda-sm90-fast" "-fast: a row may differ by 8e-03" \
        "q4 is told from full ones, q8 is not" "is near the model alone" && has "$SCRATCH/log" "(--math fast)" || { cat "$out" "$err" >&2; return 1; }
}
check "a cloud with --math fast says so, and is near a CPU, its layers nearer one that rounds alike" fast
stop

serve test/models/families/qwen2 "$pin" --kv-mem 4M --kv fp8 --front 1 --back 1
check "--kv fp8 with a model that does not bear it is warned of" has "$SCRATCH/log" "warn --kv fp8: this model adds biases"
stop
model=test/models/tiny # serve sets it

refused() { # STATUS TEXT... -- OPTION...
    want=$1
    shift
    texts=
    while [ "$1" != -- ]; do texts="$texts$1
"; shift; done
    shift
    timeout 60 "$SPLITINF" serve-cloud --home "$SCRATCH/cloud" --allow "$pin" --model $model --listen 127.0.0.1:0 "$@" \
        </dev/null >"$out" 2>"$err"
    [ $? = "$want" ] && [ ! -s "$out" ] || { cat "$err" >&2; return 1; }
    echo "$texts" | while IFS= read -r text; do has "$err" "$text" || exit 1; done
}
check "--kv f32 is refused, with what to do" refused 2 f16 "--backend cpu" -- --kv f32
check "--kv fp8 without a card is refused, with what to do" refused 2 "save nothing" "--backend cuda" -- --kv fp8 --backend cpu
check "a card that is not there is named" refused 1 "no GPU 7" -- --device 7
small() { EMU_MEMORY=4000000 refused 1 "--quant" "$@"; }
check "a card that is too small for the layers: what would help" small -- --kv-mem 1M

# The 250th launch breaks the card, which is in some pass. The cloud leaves, for whoever started it to start it again; the answer
# goes on there.
EMU_BREAK=250 EMU_BREAK_AS=214 serve $model "$pin" --kv-mem 4M
"$SPLITINF" chat --local --codec f16 "$@" --max-tokens 60 </dev/null >"$SCRATCH/alone"
timeout 300 "$SPLITINF" chat --cloud "$at" --pin "$cloud" "$@" --max-tokens 60 </dev/null >"$out" 2>"$err" &
talking=$!
broken() {
    left=600 # tenths of a second
    while kill -0 "$server" 2>/dev/null && [ $left -gt 0 ]; do
        sleep 0.1
        left=$((left - 1))
    done
    [ $left -gt 0 ] || { echo "the cloud goes on" >&2; cat "$SCRATCH/log" >&2; return 1; }
    wait "$server"
    [ $? = 1 ] && has "$SCRATCH/log" "$@" "event=draining grace_ms=0" "start it again"
}
check "a card that fails in mid-service ends the cloud, and the log says why" \
    broken "CUDA_ERROR_ECC_UNCORRECTABLE" "nvidia-smi -q -d ECC"
serve $model "$pin" --kv-mem 4M --listen "$at"
goes_on() { wait $talking && [ -s "$out" ] && cmp "$out" "$SCRATCH/alone" || { cat "$err" "$SCRATCH/log" >&2; return 1; }; }
check "and the answer goes on when it was started again" goes_on
stop

EMU_BREAK=300 serve $model "$pin" --kv-mem 4M --device 0+1
joined_broken() { split "$@" --max-tokens 60 --patience 1; broken "CUDA_ERROR_ILLEGAL_ADDRESS"; }
check "one of two that are joined ends it as well, and the other one does not hang" joined_broken "$@"
