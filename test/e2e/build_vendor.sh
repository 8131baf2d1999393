#!/bin/sh
# vendor/: a wrong checksum stops everything, a cached archive needs no network, and without either the message helps.
. test/lib.sh

# Tools that reach for the network fail at once here.
mkdir "$SCRATCH/bin" "$SCRATCH/cache"
for tool in curl wget apt-get; do
    printf '#!/bin/sh\necho "no network for %s" >&2\nexit 7\n' $tool >"$SCRATCH/bin/$tool"
    chmod +x "$SCRATCH/bin/$tool"
done
PATH=$SCRATCH/bin:$PATH
export VENDOR_CACHE="$SCRATCH/cache" VENDOR_PINS="$SCRATCH/pins"

echo "the right content" >"$SCRATCH/cache/thing-1.tar.gz"
sum=$(sha256sum "$SCRATCH/cache/thing-1.tar.gz" | cut -d' ' -f1)
cat >"$VENDOR_PINS" <<END
thing  1  upstream  $sum  thing-1.tar.gz  https://example.invalid/thing-1.tar.gz
thing  1  debian    $sum  thing_1.orig.tar.gz  stable/thing
END

cached() { [ "$(vendor/fetch.sh thing)" = "$SCRATCH/cache/thing-1.tar.gz" ]; }
check "an archive in the cache is used without a network" cached

corrupted() {
    echo "other content" >"$SCRATCH/cache/thing-1.tar.gz"
    got=$(sha256sum "$SCRATCH/cache/thing-1.tar.gz" | cut -d' ' -f1)
    vendor/fetch.sh thing >"$SCRATCH/out" 2>"$SCRATCH/err" && return 1
    [ ! -s "$SCRATCH/out" ] && has "$SCRATCH/err" "expected $sum" "got      $got" thing-1.tar.gz
}
check "a corrupted archive in the cache stops with both sums" corrupted

tampered() {
    rm -f "$SCRATCH/cache/"*
    printf '#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\necho tampered >"$2"\n' >"$SCRATCH/bin/curl"
    got=$(echo tampered | sha256sum | cut -d' ' -f1)
    vendor/fetch.sh thing >"$SCRATCH/out" 2>"$SCRATCH/err" && return 1
    [ ! -s "$SCRATCH/out" ] && [ -z "$(ls -A "$SCRATCH/cache")" ] && has "$SCRATCH/err" "expected $sum" "got      $got"
}
check "a download with other content stops with both sums and is not kept" tampered

fetched() {
    printf '#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\necho "the right content" >"$2"\n' >"$SCRATCH/bin/curl"
    [ "$(vendor/fetch.sh thing 2>"$SCRATCH/err")" = "$SCRATCH/cache/thing-1.tar.gz" ] &&
        printf '#!/bin/sh\nexit 7\n' >"$SCRATCH/bin/curl" && [ "$(vendor/fetch.sh thing)" = "$SCRATCH/cache/thing-1.tar.gz" ]
}
check "a download with the right content is kept for the next time" fetched

nowhere() {
    rm -f "$SCRATCH/cache/"*
    vendor/fetch.sh thing >"$SCRATCH/out" 2>"$SCRATCH/err" && return 1
    has "$SCRATCH/err" "could not fetch thing" "$SCRATCH/cache" "thing-1.tar.gz" "thing_1.orig.tar.gz" "$sum"
}
check "without a network the message names the files, their sums and where to put them" nowhere

# The real pins: well formed, and what was built has come from them.
pinned() {
    unset VENDOR_PINS
    bad=$(grep -vE '^#|^[a-z0-9]+ +[0-9.]+ +(upstream +[0-9a-f]{64} +[^ /]+ +https://[^ ]+|debian +[0-9a-f]{64} +[^ /]+ +[a-z]+/[a-z0-9]+)$' vendor/pins)
    [ -z "$bad" ] || { echo "malformed: $bad" >&2; return 1; }
}
check "every line of vendor/pins is well formed" pinned

threads() {
    printf '#include <mbedtls/build_info.h>\n#if MBEDTLS_VERSION_NUMBER < 0x03060000 || !defined(MBEDTLS_THREADING_PTHREAD)\n#error\n#endif\n' |
        cc -isystem vendor/build/include -x c -fsyntax-only -
}
check "mbedTLS is at least 3.6 and has threads" threads
