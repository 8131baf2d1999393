#!/bin/sh
# Fetches one pinned third-party source and prints the path of the archive.
#
#   vendor/fetch.sh NAME
#
# Archives are kept in vendor/src and used from there without a network. VENDOR_KIND=upstream|debian limits the search to
# one kind of place (for tests). A file whose SHA-256 differs from vendor/pins stops everything, wherever it came from.
set -eu
name=$1
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
pins=${VENDOR_PINS:-$here/pins}
cache=${VENDOR_CACHE:-$here/src}
mkdir -p "$cache"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM

say() { printf '%s\n' "$*" >&2; }

# check FILE SHA256: stops with both sums when they differ.
check() {
    got=$(sha256sum "$1" | cut -d' ' -f1)
    [ "$got" = "$2" ] && return 0
    say "error: wrong checksum of $1"
    say "  expected $2  (vendor/pins)"
    say "  got      $got"
    say "  The file was not used. If it lies in vendor/src, delete it to fetch it again; if a fresh one differs too,"
    say "  somebody changed it on the way or at its source: do not build from it."
    exit 3
}

# from_upstream FILE URL: a release archive by curl or wget, into $scratch.
from_upstream() {
    if command -v curl >/dev/null; then
        curl -fsSL --connect-timeout 6 --max-time 300 --speed-limit 1000 --speed-time 20 -o "$scratch/$1" "$2" 2>"$scratch/log"
    elif command -v wget >/dev/null; then
        wget -nv --tries=1 --connect-timeout=6 --read-timeout=20 -O "$scratch/$1" "$2" 2>"$scratch/log"
    else
        echo "neither curl nor wget is installed" >"$scratch/log"
        return 1
    fi
}

# from_debian FILE SUITE/SOURCE: the orig archive of a source package, by an apt configuration of our own in $scratch that
# adds a deb-src line for SUITE at the addresses that apt already uses. The system's configuration is only read.
from_debian() {
    : >"$scratch/log"
    command -v apt-get >/dev/null || { echo "there is no apt-get" >"$scratch/log"; return 1; }
    suite=${2%%/*} source=${2##*/}
    signed=
    key=/usr/share/keyrings/debian-archive-keyring
    for k in "$key.pgp" "$key.gpg"; do
        [ -r "$k" ] && signed="[signed-by=$k] " && break
    done
    for site in $(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 2>/dev/null | sort -u); do
        d=$scratch/apt
        rm -rf "$d"
        mkdir -p "$d/lists/partial" "$d/cache/archives/partial" "$d/parts" "$d/out"
        echo "deb-src $signed${site%/} $suite main" >"$d/sources.list"
        set -- "$1" -o Dir::Etc::SourceList="$d/sources.list" -o Dir::Etc::SourceParts="$d/parts" \
            -o Dir::State::Lists="$d/lists" -o Dir::Cache="$d/cache" -o APT::Sandbox::User= -o APT::Get::List-Cleanup=0 \
            -o Acquire::Retries=1 -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20 -o Acquire::Languages=none
        file=$1
        shift
        if apt-get "$@" -qq --error-on=any update >>"$scratch/log" 2>&1 &&
            (cd "$d/out" && apt-get "$@" -qq --tar-only --download-only source "$source") >>"$scratch/log" 2>&1; then
            if [ -f "$d/out/$file" ]; then
                mv "$d/out/$file" "$scratch/$file"
                return 0
            fi
            echo "suite $suite has $(ls "$d/out"), not $file" >>"$scratch/log"
        fi
        set -- "$file"
    done
    return 1
}

grep -E "^${name}[[:space:]]" "$pins" >"$scratch/lines" || { say "error: vendor/pins has no line for $name"; exit 2; }

while read -r _ _ kind sha file where; do
    if [ -f "$cache/$file" ] && [ "${VENDOR_KIND:-$kind}" = "$kind" ]; then
        check "$cache/$file" "$sha"
        echo "$cache/$file"
        exit 0
    fi
done <"$scratch/lines"

while read -r _ version kind sha file where; do
    [ "${VENDOR_KIND:-$kind}" = "$kind" ] || continue
    say "fetching $name $version ($kind: $where)"
    if "from_$kind" "$file" "$where" </dev/null; then
        check "$scratch/$file" "$sha"
        mv "$scratch/$file" "$cache/.$file.part" # into the file system of the cache first, then in one step
        mv "$cache/.$file.part" "$cache/$file"
        echo "$cache/$file"
        exit 0
    fi
    say "  not there: $(tail -n 1 "$scratch/log")"
done <"$scratch/lines"

say "error: could not fetch $name. Get one of these files by hand, put it into $cache and run this again:"
while read -r _ _ _ sha file where; do
    say "  $file  sha256 $sha  ($where)"
done <"$scratch/lines"
exit 1
