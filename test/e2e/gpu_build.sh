#!/bin/sh
# The GPU part of the build: kernels for every architecture, without registers spilled to memory; a program that needs none of
# NVIDIA's files to start; what it says where there is no card, and that it computes on the CPU then.
. test/lib.sh
images=build-gpu out=$SCRATCH/out err=$SCRATCH/err
tiny="--local --model test/models/tiny --raw --prompt The --max-tokens 8"

no_nvidia() { ! readelf -d "$SPLITINF" | grep NEEDED | grep -iE 'cuda|cublas|nvidia'; }
check "no NVIDIA library is linked" no_nvidia

# shellcheck disable=SC2086 # words
without() { SPLITINF_LIBCUDA=/nonexistent/libcuda.so.1 "$SPLITINF" chat $tiny "$@" >"$out" 2>"$err"; }
asked() {
    without --backend cuda
    [ $? = 1 ] && [ ! -s "$out" ] && has "$err" "--backend cuda: " "/nonexistent/libcuda.so.1"
}
check "without a driver, --backend cuda is an error that names what is missing" asked
device() {
    without --backend auto --device 0
    [ $? = 1 ] && has "$err" "/nonexistent/libcuda.so.1"
}
check "and so is --device" device
auto() {
    without --backend cpu && [ ! -s "$err" ] && cp "$out" "$SCRATCH/cpu" && without --backend auto && [ ! -s "$err" ] &&
        cmp "$out" "$SCRATCH/cpu" && without --backend auto --verbose && has "$err" "computing on the CPU" "libcuda"
}
check "--backend auto computes on the CPU, and says why with --verbose" auto
refused() { # TEXT OPTION...
    text=$1
    shift
    without "$@"
    [ $? = 2 ] && has "$err" "$text"
}
check "f32 keys and values are for the CPU" refused "--kv f16" --backend cuda --kv f32
check "--isa is for the CPU" refused "--isa portable" --backend cuda --isa portable
check "with --device as well" refused "--isa portable" --backend auto --device 0 --isa portable
cpu_wins() { without --backend cpu --device 0 && cmp "$out" "$SCRATCH/cpu"; }
check "with --backend cpu, --device means nothing" cpu_wins

"$SPLITINF" --version >"$out"
if grep -q 'built without GPU kernels' "$out"; then
    has "$BUILD/gpu/images.h" IMAGE 2>/dev/null && echo "not ok the program has the kernels that were compiled"
    if grep -q fsanitize "$BUILD/.flags"; then why="a build with a sanitizer has none"; else why="there was no nvcc when this was built"; fi
    echo "skip kernels: $why"
    exit 0
fi
archs=$(sed -n 's/.*cuda (kernels for \(sm_[^a]*\) and PTX of .*, by nvcc [0-9.]*)$/\1/p' "$out")
built() { [ -n "$archs" ] || { cat "$out" >&2; return 1; }; }
check "the program says for which cards it has kernels" built

# A machine that has the driver was rented for its card: that the CPU computes there is said without being asked.
# shellcheck disable=SC2086 # words
broken() {
    EMU_INIT=803 SPLITINF_LIBCUDA=$BUILD/libcuda-emu.so "$SPLITINF" chat $tiny --backend auto >"$out" 2>"$err" && cmp "$out" "$SCRATCH/cpu" &&
        has "$err" "computing on the CPU" "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH" "reboot"
}
if [ -e "$BUILD/libcuda-emu.so" ]; then check "a driver that does not work is told where --backend auto turns to the CPU" broken; fi

# Every kernel that the C side knows was compiled for each of them: "KERNEL ARCH SPILLED" of what ptxas told.
cat $images/*.log | awk -v q="'" '/Compiling entry function/ { split($0, f, q); kernel = f[2]; arch = f[4] }
    /bytes spill stores/ { for (i = 1; i < NF; i++) if ($(i + 2) == "spill" && $(i + 3) ~ /^stores/) print kernel, arch, $i }' |
    sort -u >"$SCRATCH/kernels"
printf '#include "gpu/kernel_list.h"\n#define NAME(n) @n@\nGPU_KERNELS(NAME)\n' | ${CC:-cc} -I. -E -P - | grep -o '@[A-Za-z0-9_]*@' |
    tr -d @ | sort -u >"$SCRATCH/known"
compiled() {
    [ -s "$SCRATCH/known" ] || return 1
    for arch in $archs; do
        awk -v arch="$arch" '$2 == arch { print $1 }' "$SCRATCH/kernels" | sort -u >"$SCRATCH/there"
        comm -23 "$SCRATCH/known" "$SCRATCH/there" >"$SCRATCH/missing"
        [ ! -s "$SCRATCH/missing" ] || { echo "for $arch there is no $(tr '\n' ' ' <"$SCRATCH/missing")" >&2; return 1; }
    done
}
check "every kernel has code for each architecture" compiled

# Registers that are spilled to memory cost speed; a few bytes around a loop do not.
spills() { awk '$3 > 64 { print $1 " for " $2 " spills " $3 " bytes"; bad = 1 } END { exit bad || NR == 0 }' "$SCRATCH/kernels" >&2; }
check "no kernel spills registers" spills

# Loads by ld.global.nc may be moved behind the wait for the kernel before, and then nothing overlaps (simt.cuh).
overlaps() { cat $images/compute_*/*.ptx >"$SCRATCH/ptx" && grep -q 'ld\.global\.L1::no_allocate' "$SCRATCH/ptx" && ! grep 'ld\.global\.[a-zA-Z0-9:_.]*nc' "$SCRATCH/ptx" >&2; }
check "no kernel reads weights in a way that keeps it from overlapping with the one before" overlaps
