# shellcheck shell=sh
# shellcheck disable=SC2034,SC2154 # variables of run.sh, which reads this
# How fast it is.

# cuBLASLt is what the matrix rate is measured with. A machine for PyTorch often has it only among Python's packages.
find_blas() {
    ldconfig -p 2>/dev/null | grep -q 'libcublasLt\.so' && return
    for dir in /usr/local/cuda*/lib64 /usr/local/cuda*/targets/*/lib \
        $("$python" -c 'import os, sys; print("\n".join(os.path.join(p, "nvidia", d, "lib") for p in sys.path for d in ("cu13", "cublas")))' 2>/dev/null); do
        for file in "$dir"/libcublasLt.so.1[23]; do
            [ -e "$file" ] && export LD_LIBRARY_PATH="$dir${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" && echo "cuBLASLt: $file" && return
        done
    done
}

# Products and passes of each model, those with goals beside PyTorch's.
kernels() {
    needs_real || return 77
    find_blas
    : >"$scratch/kernels"
    for model in $kernel_models; do
        "$SPLITINF" bench --kernels --backend cuda --device "$device" --model "$model" --pass-rows $kernel_rows --json >"$scratch/json" || return 1
        cat "$scratch/json" >>"$scratch/kernels"
        [ -n "$rehearse" ] ||
            "$SPLITINF" bench --kernels --backend cuda --device "$device" --model "$model" --pass-rows $kernel_rows --math fast >>"$out/kernels-fast.txt" || return 1
    done
    cp "$scratch/kernels" "$out/kernels.json"
    touch "$out/torch.txt"
    awk -v passes="$out/passes.txt" -v products="$out/products.txt" -v goals="$out/goals" -f test/gpu/steps/passes.awk "$out/torch.txt" "$out/kernels.json" || return 1
    cat "$out/passes.txt" "$out/products.txt"
    # The last model's: limits are measured with each.
    said=$(sed -n 's/.*"copy_gb_s":\([0-9]*\).*"matrix_tflop_s":\([0-9a-z]*\).*"matrix_by":"\([^"]*\)".*/copies \1 GB\/s, matrices \2 TFLOP\/s (\3)/p' "$out/kernels.json" | tail -n 1)
    said="$said; $(grep -c ' PASS' "$out/passes.txt") passes meet their goal, $(grep -c ' MISS' "$out/passes.txt") miss it"
    [ -n "$(grep 'pass of' "$out/goals")" ]
}

# Passes of few rows once more, with launches one after the other: what their overlap is worth (SPLITINF_PDL, cards of 9.0 on).
overlap() {
    needs_real || return 77
    [ -s "$out/kernels.json" ] || skip "the step kernels has measured nothing to compare with" || return
    : >"$scratch/serial"
    for model in $kernel_models; do
        SPLITINF_PDL=0 "$SPLITINF" bench --kernels --backend cuda --device "$device" --model "$model" --pass-rows $overlap_rows --json >"$scratch/json" || return 1
        cat "$scratch/json" >>"$scratch/serial"
    done
    # "MODEL ROWS MILLISECONDS" of the passes in a file.
    passes_of() {
        sed 's/.*"rows":\[//; s/},{/}\n{/g' "$1" | while read -r row; do
            [ "$(field "$row" layers)" -gt 0 ] 2>/dev/null && echo "$(field "$row" model) $(field "$row" rows) $(field "$row" ms)"
        done
    }
    passes_of "$out/kernels.json" >"$scratch/with"
    passes_of "$scratch/serial" >"$scratch/without"
    awk 'NR == FNR { ms[$1, $2] = $3; next } ($1, $2) in ms {
        printf "| %s, pass of %s rows: launches that overlap, one after the other | - | %.4f ms, %.4f ms | - |\n", $1, $2, ms[$1, $2], $3 }' \
        "$scratch/with" "$scratch/without" >"$scratch/lines"
    cat "$scratch/lines"
    cat "$scratch/lines" >>"$out/goals"
    said="$(grep -c . "$scratch/lines") passes measured both ways"
    [ -s "$scratch/lines" ]
}

versus_torch() {
    needs_real || return 77
    "$python" -c 'import torch, transformers; assert torch.cuda.is_available()' 2>"$scratch/torch" ||
        skip "$python has no torch with CUDA, or no transformers: $(tail -n 1 "$scratch/torch")" || return
    # shellcheck disable=SC2086 # words
    "$python" test/gpu/versus_torch.py --device "${device%%[,+]*}" --rows $kernel_rows $kernel_models >"$scratch/torch" || { cat "$scratch/torch"; return 1; }
    cp "$scratch/torch" "$out/torch.txt"
    cat "$out/torch.txt"
    said="$(sed -n 1p "$out/torch.txt"); $(grep -c '^torch [^ ]* [0-9]* [0-9.]*$' "$out/torch.txt") passes"
    grep -q '^torch [^ ]* [0-9]* [0-9.]*$' "$out/torch.txt"
}

# field JSON NAME: of one flat object.
field() { echo "$1" | sed -n 's/.*"'"$2"'":\([^,}]*\).*/\1/p' | tr -d '"'; }

# A split model at 80 ms, the edges on the CPU and on the card: what a step costs beside the round trip and the model.
split_80ms() {
    needs_real || return 77
    [ -n "$replay" ] || skip "no recorded answers: --replay FILE --tokenizer FILE" || return
    cloud --model $split_model --kv-mem $split_kv || return 1
    : >"$out/split.txt"
    for edges in cpu cuda; do
        # shellcheck disable=SC2086 # words or none
        "$SPLITINF" bench --home "$scratch/client" --model $split_model --backend $edges --device "$device" --cloud "$at" --pin "$pin" \
            --replay "$replay" ${prime:+--prime "$prime"} --tokenizer "$tokenizer" --mode sequential,auto --rtt 80 --mbit 100 \
            --tokens $split_tokens --answers $split_answers --json >"$out/split-$edges.json" || { cloud_end; return 1; }
        cat "$out/split-$edges.json"
        # Rows over all answers have no category.
        sed 's/.*"rows":\[//; s/\].*//; s/},{/}\n{/g' "$out/split-$edges.json" | grep '"category":null' >"$scratch/rows"
        while read -r row; do
            printf '%-4s edges, %-10s %6.2f tok/s, %5.2f tokens a step, own overhead of a step %6.2f ms (here %.2f)\n' $edges "$(field "$row" mode)," \
                "$(field "$row" tok_s)" "$(field "$row" tokens_per_round_trip)" "$(field "$row" overhead_ms)" "$(field "$row" overhead_here_ms)"
        done <"$scratch/rows" >>"$out/split.txt"
        row=$(grep '"mode":"auto"' "$scratch/rows")
        tok=$(field "$row" tok_s) own=$(field "$row" overhead_ms)
        goal "split at 80 ms, edges on $(echo $edges | sed 's/cpu/the CPU/;s/cuda/the card/'): own overhead of a step" "3 ms" \
            "$(printf '%.2f ms; %.2f tok/s' "$own" "$tok")" below "$own" 3
        said="$said${said:+; }$edges edges $(printf '%.2f tok/s, overhead %.2f ms' "$tok" "$own")"
    done
    cloud_end
    cat "$out/split.txt"
    [ "$(wc -l <"$out/split.txt")" = 4 ]
}

# Many sessions at once: with a tiny model, killed clients among them, every text compared; then clients that compute nothing
# themselves, so that the rate is the cloud's.
sessions() {
    needs_real || return 77
    [ -x "$build/test/bench/split_speed" ] || skip "there is no $build/test/bench/split_speed" || return
    LOAD_MODEL="$load_model" SPLITINF_BACKEND=cuda SPLITINF_DEVICE="$device" BUILT=1 test/bench/split_load.sh $n_sessions $load_seconds 0 >"$scratch/out" 2>&1
    status=$?
    cat "$scratch/out"
    texts=$(sed -n 's/.* \([0-9]* texts compared, [0-9]* wrong, [0-9]* failed\);.*/\1/p' "$scratch/out")
    SPLITINF_BACKEND=cuda SPLITINF_DEVICE="$device" BUILT=1 test/bench/split_speed.sh $speed_model 0 $speed_seconds $n_sessions $speed_kv $speed_ctx \
        >"$out/sessions.txt" 2>"$scratch/err" || { cat "$out/sessions.txt" "$scratch/err"; said="$texts; no rate was measured"; return 1; }
    cat "$out/sessions.txt"
    rate=$(sed -n 's/^[0-9]* sessions: //p' "$out/sessions.txt")
    said="$texts; $speed_model: $rate"
    goal "$n_sessions sessions: tokens per second, fairness" - "$rate"
    [ $status = 0 ] && [ -n "$rate" ]
}
