#!/bin/sh
# The release binary: only the C library is shared, and the usual hardening is on.
. test/lib.sh

if grep -q fsanitize "$BUILD/.flags"; then
    echo "skip linkage: this build has a sanitizer in it"
    exit 0
fi

only_libc() {
    ldd "$SPLITINF" >"$SCRATCH/ldd" || return 1
    others=$(sed 's/^[[:space:]]*//' "$SCRATCH/ldd" | grep -vE '^(linux-vdso|libc\.so|libm\.so|libpthread\.so|libdl\.so|/lib[^ ]*/ld-linux)')
    [ -z "$others" ] || { echo "$others" >&2; return 1; }
}
check "nothing but the C library is linked dynamically" only_libc

readelf -Wlhd "$SPLITINF" >"$SCRATCH/elf"
check "position independent" grep -qE 'Type: +DYN' "$SCRATCH/elf"
check "symbols are bound at start" grep -qE 'BIND_NOW|FLAGS.* NOW' "$SCRATCH/elf"
check "relocations are read-only afterwards" grep -q GNU_RELRO "$SCRATCH/elf"
check "the stack is not executable" grep -qE 'GNU_STACK.* RW ' "$SCRATCH/elf"
canary() { nm "$SPLITINF" | grep -q __stack_chk_fail; }
check "stack canaries" canary
