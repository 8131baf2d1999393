#!/bin/sh
# Makes headers, static libraries and licences of the sources that vendor/pins names. Does nothing when they are there.
#
#   vendor/build.sh [DIR]        DIR: vendor/build when it is not given
#
# A static library of the distribution is taken instead of the pinned source when it is new enough and set up as we need
# it. VENDOR_FROM=source builds from source in any case; VENDOR_FROM=distro refuses to.
set -eu
cd "$(dirname -- "$0")/.."
CC=${CC:-cc}
from=${VENDOR_FROM:-any}
jobs=$(nproc 2>/dev/null || echo 2)
arch=$($CC -dumpmachine | cut -d- -f1)
out=${1:-vendor/build}

say() { printf '%s\n' "$*" >&2; }

# What the result depends on; kept beside it.
key=$(cat vendor/pins vendor/build.sh | sha256sum | cut -d' ' -f1)-$arch-$from
[ "$(cat $out/.key 2>/dev/null)" = "$key" ] && exit 0

mkdir -p $out
if command -v flock >/dev/null; then
    exec 9>$out/.lock
    flock 9
    [ "$(cat $out/.key 2>/dev/null)" = "$key" ] && exit 0
fi
rm -rf $out/.key $out/include $out/licences $out/lib*.a $out/work
mkdir -p $out/include $out/licences $out/work
log=$PWD/$out/log
: >"$log"

cflags="-O2 -g -fPIC -fstack-protector-strong -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2"
# Every x86-64 machine that can run AVX2, the least that is useful here, has these. With them AES-128-GCM does 371 MiB/s
# per core against 206-272 without.
[ "$arch" = x86_64 ] && cflags="$cflags -maes -mpclmul -msse4.1"

# run WHAT COMMAND...: quietly; the log's end when it fails.
run() {
    what=$1
    shift
    "$@" >>"$log" 2>&1 && return 0
    say "error: building $what failed:"
    tail -n 20 "$log" >&2
    exit 1
}

# unpack NAME: fetches (and so verifies) the archive, then unpacks it into $out/work/NAME.
unpack() {
    archive=$(vendor/fetch.sh "$1")
    mkdir -p "$out/work/$1"
    run "$1 (unpacking $archive)" tar -xf "$archive" -C "$out/work/$1" --strip-components=1
}

# distro PACKAGE PROBE LIB...: takes the distribution's static libraries when the program PROBE compiles against them.
# Installs nothing: ./build.sh has offered the package before it called this.
distro() {
    package=$1 probe=$2
    shift 2
    [ "$from" = source ] && return 1
    echo "$probe" | $CC -x c -fsyntax-only - 2>/dev/null || return 1
    for lib; do
        path=$($CC -print-file-name="$lib")
        [ -f "$path" ] || return 1
        cp "$path" "$out/$lib"
    done
    [ -r "/usr/share/doc/$package/copyright" ] && cp "/usr/share/doc/$package/copyright" "$out/licences/$package"
    say "vendor: $package of the distribution"
}

refuse_source() {
    [ "$from" != distro ] && return 0
    say "error: VENDOR_FROM=distro, but the distribution has no static $1 that is new enough"
    exit 1
}

mbedtls() {
    refuse_source mbedtls
    unpack mbedtls
    src=$out/work/mbedtls
    # In the configuration header, not on the command line: the layout of its structures depends on these.
    sed -i -e 's|^//\(#define MBEDTLS_THREADING_C\)$|\1|' -e 's|^//\(#define MBEDTLS_THREADING_PTHREAD\)$|\1|' \
        $src/include/mbedtls/mbedtls_config.h
    run "mbedtls (its threads are not on)" grep -q '^#define MBEDTLS_THREADING_PTHREAD' $src/include/mbedtls/mbedtls_config.h
    say "vendor: building mbedtls (half a minute, once)"
    run mbedtls make -C $src/library -j"$jobs" CC="$CC" CFLAGS="$cflags" GEN_FILES= static
    cp $src/library/libmbedtls.a $src/library/libmbedx509.a $src/library/libmbedcrypto.a $out/
    cp -R $src/include/mbedtls $src/include/psa $out/include/
    cp $src/LICENSE $out/licences/mbedtls
}

yyjson() {
    refuse_source yyjson
    unpack yyjson
    src=$out/work/yyjson
    run yyjson $CC $cflags -std=c99 -c $src/src/yyjson.c -o $out/work/yyjson.o
    run yyjson ar rcs $out/libyyjson.a $out/work/yyjson.o
    cp $src/src/yyjson.h $out/include/
    cp $src/LICENSE $out/licences/yyjson
}

distro libmbedtls-dev '#include <mbedtls/build_info.h>
#include <psa/crypto.h>
#if MBEDTLS_VERSION_NUMBER < 0x03060000 || MBEDTLS_VERSION_NUMBER >= 0x04000000
#error version
#endif
#if !defined(MBEDTLS_THREADING_PTHREAD) || !defined(MBEDTLS_SSL_PROTO_TLS1_3)
#error configuration
#endif' libmbedtls.a libmbedx509.a libmbedcrypto.a || mbedtls

distro libyyjson-dev '#include <yyjson.h>
#if YYJSON_VERSION_HEX < 0x000A00
#error version
#endif' libyyjson.a || yyjson

rm -rf $out/work
echo "$key" >$out/.key
