#!/bin/sh
# Kernels as nvcc compiles them: the emulated card executes their PTX (test/gpu/ptx) in the tests of each operation and in passes
# of whole models, and what every launch leaves in memory must be, bit for bit, what the same kernel leaves as C++. Every kernel
# of gpu/kernel_list.h must have been among them.
. test/lib.sh
images=build-gpu out=$SCRATCH/out counts=$SCRATCH/counts
"$SPLITINF" --version | grep -q 'built without GPU kernels' &&
    { echo "skip kernels as PTX: there was no nvcc when this was built"; exit 0; }

# Those of today's sources: a folder of images keeps what earlier ones left.
mkdir "$SCRATCH/ptx"
for source in gpu/*.cu test/gpu/emu/test_kernels.cu; do
    name=$(basename "$source" .cu)
    ln -s "$PWD/$images/$name.ptx" "$SCRATCH/ptx/" && [ -s "$images/$name.ptx" ] ||
        { echo "not ok the build left $images/$name.ptx"; exit 1; }
done
: >"$counts"

# Tests of gpu_simt that break a rule on purpose end otherwise: the interpreter finds what they do by itself.
broken="a_missing_barrier_shows|a_write_behind_an_allocation|copies_are_visible_when_their_group_was_waited_for"
broken="$broken|memory_that_nobody_has_written_is_not_a_number"
run() { # FILTER
    EMU_PTX=$SCRATCH/ptx EMU_PTX_COUNTS=$counts "$BUILD/unit" --ignore-warnings --timeout 300 --filter "$1" >"$out" 2>&1 &&
        grep -q 'Tested: [1-9]' "$out" || { grep -vE '^(\[----\] *)?$' "$out" | tail -n 20 >&2; return 1; }
}
check "what simt.cuh offers" run "gpu_simt/!($broken)"
check "norm, rope" run 'gpu_@(norm|rope)/*'
check "products" run 'gpu_product/!(*_of_a_model)'
check "matrices packed on the card" run 'gpu_matrix/*'
check "attention" run 'gpu_attend/*'
check "passes of models" run '@(gpu_trees|gpu_exact)/@(qwen3|qwen2_swa_q4)'

every_kernel() {
    printf '#include "gpu/kernel_list.h"\n#define NAME(n) @n@\nGPU_KERNELS(NAME)\n' | ${CC:-cc} -I. -E -P - |
        grep -o '@[A-Za-z0-9_]*@' | tr -d @ | sort -u >"$SCRATCH/known"
    cut -d' ' -f1 "$counts" | sort -u | comm -23 "$SCRATCH/known" - >"$SCRATCH/missing"
    [ -s "$SCRATCH/known" ] && [ ! -s "$SCRATCH/missing" ] ||
        { echo "never executed: $(tr '\n' ' ' <"$SCRATCH/missing")" >&2; return 1; }
}
check "every kernel was executed" every_kernel
