#!/bin/sh
# The NEON kernels, cross-compiled and run under qemu: every case of test/unit/cpu_cases.c has to give the bits of the
# portable kernels, and the codecs of the wire those of their golden rows. Prints "SKIP: REASON" and ends with status 77 when
# the compiler or the emulator is not there (Debian: gcc-aarch64-linux-gnu, libc6-dev-arm64-cross, qemu-user).
#
#   test/arm64.sh [BUILD_DIR]
set -eu
cd "$(dirname -- "$0")/.."
out=${1:-build-arm64}
cc=${CC_ARM64:-aarch64-linux-gnu-gcc}

skip() {
    echo "SKIP: $1"
    exit 77
}
command -v "$cc" >/dev/null || skip "there is no $cc, the cross compiler for arm64"
qemu=
if [ "$(uname -m)" != aarch64 ]; then
    qemu=$(command -v qemu-aarch64 || command -v qemu-aarch64-static) || skip "there is no qemu-aarch64 to run arm64 programs"
fi

mkdir -p "$out"
# backend.c is left out: the models' files and their parsers are not needed here.
"$cc" -std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -I. \
    -ffp-contract=off -fno-strict-aliasing -O2 -g -static -o "$out/arm64_bits" \
    test/arm64_bits.c test/unit/cpu_cases.c core/model/dtype.c core/base/err.c core/base/pool.c core/base/wipe.c \
    core/cpu/attend.c core/cpu/cpu.c core/cpu/isa_neon.c core/cpu/isa_portable.c core/cpu/matmul.c core/cpu/pack.c \
    core/cpu/rows.c net/codec.c -lm -lpthread
# shellcheck disable=SC2086 # empty on an arm64 machine
$qemu "$out/arm64_bits"
