#!/bin/sh
# Kernels as nvcc compiles them: the emulated card executes their PTX (test/gpu/ptx) in the tests of each operation and in passes
# of whole models, and what every launch leaves in memory must be, bit for bit, what the same kernel leaves as C++. Every kernel
# of gpu/kernel_list.h must have been among them.
. test/lib.sh
images=build-gpu out=$SCRATCH/out counts=$SCRATCH/counts oldest='' latest=''
"$SPLITINF" --version | grep -q 'built without GPU kernels' &&
    { echo "skip kernels as PTX: there was no nvcc when this was built"; exit 0; }

# Those of today's sources: a folder of images keeps what earlier ones left. What was compiled for 9.0 is executed as well.
for arch in compute_80 compute_90; do
    [ -d $images/$arch ] || continue
    mkdir "$SCRATCH/$arch"
    for source in gpu/*.cu test/gpu/emu/test_kernels.cu; do
        name=$(basename "$source" .cu)
        ln -s "$PWD/$images/$arch/$name.ptx" "$SCRATCH/$arch/"
        [ -s "$SCRATCH/$arch/$name.ptx" ] || { echo "not ok the build left $images/$arch/$name.ptx"; exit 1; }
    done
    oldest=${oldest:-$arch} latest=$arch
done
: >"$counts"

# Tests of gpu_simt that break a rule on purpose end otherwise: the interpreter finds what they do by itself.
broken="a_missing_barrier_shows|a_write_behind_an_allocation|copies_are_visible_when_their_group_was_waited_for"
broken="$broken|memory_that_nobody_has_written_is_not_a_number"
run() { # PTX FILTER
    EMU_PTX=$SCRATCH/$1 EMU_PTX_COUNTS=$counts "$BUILD/unit" --ignore-warnings --timeout 300 --filter "$2" >"$out" 2>&1 &&
        grep -q 'Tested: [1-9]' "$out" || { grep -vE '^(\[----\] *)?$' "$out" | tail -n 20 >&2; return 1; }
}
check "what simt.cuh offers" run "$oldest" "gpu_simt/!($broken)"
check "norm, rope, join" run "$oldest" 'gpu_@(norm|rope|slices)/*'
check "products" run "$oldest" 'gpu_product/!(*_of_a_model)'
check "matrices packed on the card" run "$oldest" 'gpu_matrix/*'
check "attention" run "$oldest" 'gpu_attend/*'
check "passes of models" run "$latest" '@(gpu_trees|gpu_exact)/@(qwen3|qwen2_swa_q4)'

every_kernel() {
    printf '#include "gpu/kernel_list.h"\n#define NAME(n) @n@\nGPU_KERNELS(NAME)\n' | ${CC:-cc} -I. -E -P - |
        grep -o '@[A-Za-z0-9_]*@' | tr -d @ | sort -u >"$SCRATCH/known"
    cut -d' ' -f1 "$counts" | sort -u | comm -23 "$SCRATCH/known" - >"$SCRATCH/missing"
    [ -s "$SCRATCH/known" ] && [ ! -s "$SCRATCH/missing" ] ||
        { echo "never executed: $(tr '\n' ' ' <"$SCRATCH/missing")" >&2; return 1; }
}
check "every kernel was executed" every_kernel
