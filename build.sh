#!/bin/sh
# The way in: sees to what the build needs, then builds, tests, shows or installs. `./build.sh --help`.
set -eu
cd "$(dirname -- "$0")"
CC=${CC:-cc}
export CC
jobs=$(nproc 2>/dev/null || echo 2)

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

usage() {
    cat <<'END'
usage: ./build.sh [COMMAND]

  (none)           build ./splitinf (release; everything but the C library is linked statically)
  demo             build, then a chat with the small model in test/models/tiny, split over two processes and TLS
  test [MODE]      build and run all tests; MODE: release (default), debug or tsan
  debug            build build-debug/splitinf with AddressSanitizer and UBSan
  tsan             build build-tsan/splitinf with ThreadSanitizer
  static           build ./splitinf-static: CPU only, no shared library at all
  fuzz [SECONDS]   build the fuzz targets and run each of them that long (default 60; needs clang)
  bench            build, then measure the kernels against the limits of this machine
  packages WHAT... only look for the packages of build, test, fuzz, lint or arm64 (a cross compiler)
  install [PREFIX] build, then install under PREFIX (default /usr/local; DESTDIR is respected)
  clean            remove everything that was built (vendored sources and libraries stay; clean all removes them too)

Every command first looks for the packages that it needs. On Debian and Ubuntu, missing ones are installed with apt-get
when this runs as root or sudo asks for no password; otherwise the command to type is printed and nothing is changed.

Environment: CC (compiler, default cc), V=1 (show whole commands), VENDOR_FROM=source|distro (where mbedTLS and yyjson
come from; see vendor/build.sh), NVCC (the CUDA compiler; default: what PATH or /usr/local/cuda* has; none: no kernels for
NVIDIA cards, as where there is no nvcc), GPU_ARCHS="80 86 89 90 100 120" (the cards to compile for: fewer is quicker).
END
}

# --- What must be there -------------------------------------------------------------------------------------------------

missing=
missing_add() { case " $missing " in *" $1 "*) ;; *) missing="$missing $1" ;; esac }

need_command() { command -v "$1" >/dev/null || missing_add "$2"; }
need_archive() { # LIB.a as the linker would find it
    path=$($CC -print-file-name="$1" 2>/dev/null) && [ -f "$path" ] || missing_add "$2"
}
need_program() { # a C program that must link with $3...; $1 is its text
    text=$1 package=$2
    shift 2
    echo "$text" | ${compiler:-$CC} -x c -o /dev/null - "$@" 2>/dev/null || missing_add "$package"
}

look_build() {
    case $CC in
    *clang*) need_command "$CC" clang ;;
    *-linux-gnu-gcc*) need_command "$CC" "gcc-${CC%-gcc*}" ;;
    *) need_command "$CC" build-essential ;;
    esac
    need_command make build-essential
    need_command ar build-essential
    need_command tar tar
    need_command bzip2 bzip2
    need_command xz xz-utils
    [ -z "$missing" ] || return 0 # without a compiler nothing else can be looked for
    need_archive libpcre2-8.a libpcre2-dev
    need_archive libutf8proc.a libutf8proc-dev
    need_archive libevent_core.a libevent-dev
    need_archive libedit.a libedit-dev
    need_archive libtinfo.a libncurses-dev
    need_archive libbsd.a libbsd-dev
    need_archive libmd.a libmd-dev
    headers='#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <utf8proc.h>
#include <event2/event.h>
#include <histedit.h>'
    if ! echo "$headers" | $CC -x c -fsyntax-only - 2>/dev/null; then
        echo '#include <stdio.h>' | $CC -x c -fsyntax-only - 2>/dev/null || missing_add build-essential
        echo "$headers" | sed 3,5d | $CC -x c -fsyntax-only - 2>/dev/null || missing_add libpcre2-dev
        echo '#include <utf8proc.h>' | $CC -x c -fsyntax-only - 2>/dev/null || missing_add libutf8proc-dev
        echo '#include <event2/event.h>' | $CC -x c -fsyntax-only - 2>/dev/null || missing_add libevent-dev
        echo '#include <histedit.h>' | $CC -x c -fsyntax-only - 2>/dev/null || missing_add libedit-dev
    fi
}

# The distribution's own mbedTLS is better than the pinned source where it is new enough: it gets the distribution's
# updates. (Its package of yyjson has no static library, so that one is taken only where it happens to be installed.)
look_vendored() {
    [ ! -f vendor/build/.key ] && [ "${VENDOR_FROM:-}" != source ] && command -v apt-cache >/dev/null || return 0
    version=$(LC_ALL=C apt-cache policy libmbedtls-dev 2>/dev/null | sed -n 's/^  Candidate: \([0-9][^ ]*\)$/\1/p')
    [ -n "$version" ] || return 0
    dpkg --compare-versions "$version" ge 3.6 && dpkg --compare-versions "$version" lt 4 || return 0
    [ "$(dpkg-query -W -f '${Status}' libmbedtls-dev 2>/dev/null)" = 'install ok installed' ] || missing_add libmbedtls-dev
}

look_test() {
    [ -z "$missing" ] || return 0
    need_program '#include <criterion/criterion.h>
Test(a, b) {}' libcriterion-dev -lcriterion
}

look_fuzz() {
    need_command clang clang
    command -v clang >/dev/null || return 0
    compiler=clang
    need_program 'int LLVMFuzzerTestOneInput(const char *p, long n) { return p && n < 0; }' \
        "libclang-rt-$(clang -dumpversion | cut -d. -f1)-dev" -fsanitize=fuzzer,address
    compiler=
}

look_lint() {
    need_command clang clang
    need_command clang-tidy clang-tidy
    need_command cppcheck cppcheck
    need_command shellcheck shellcheck
}

look_arm64() { need_command aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu; }

# need LOOK...: runs these checks, installs what they miss, and runs them again to be sure.
need() {
    missing=
    for look; do "look_$look"; done
    # What comes with a compiler can only be looked for when there is one, so a second round may find more.
    for round in 1 2 3; do
        [ -n "$missing" ] || return 0
        # shellcheck disable=SC2086 # a list of words
        install_packages $missing
        before=$missing missing=
        for look; do "look_$look"; done
        [ "$missing" != "$before" ] || die "still missing after the installation:$missing"
    done
    [ -z "$missing" ] || die "still missing after $round rounds of installation:$missing"
}

install_packages() {
    command -v apt-get >/dev/null || die "these Debian packages, or what this system calls them, are missing: $*
  Install them and run this again."
    if [ "$(id -u)" = 0 ]; then
        as_root=
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        as_root='sudo -n'
    else
        say "error: these packages are missing: $*"
        say "  Install them with"
        say "    sudo apt-get update && sudo apt-get install $*"
        say "  and run this again."
        exit 1
    fi
    say "installing with apt-get: $*"
    log=$(mktemp)
    apt_quiet() { $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq "$@" >>"$log" 2>&1 </dev/null; }
    # A fresh container has no package lists yet, and old lists name files that are gone.
    set -- install -y --no-install-recommends "$@"
    if apt_quiet "$@" || { apt_quiet update && apt_quiet "$@"; }; then
        rm -f "$log"
        return 0
    fi
    tail -n 15 "$log" >&2
    rm -f "$log"
    shift 3
    die "apt-get could not install: $*"
}

# --- What can be done ---------------------------------------------------------------------------------------------------

# compile MODE TARGET...
compile() {
    mode=$1
    shift
    vendor/build.sh
    quiet=-s
    [ -z "${V:-}" ] || quiet=
    # shellcheck disable=SC2086 # one word or none
    make --no-print-directory $quiet -j"$jobs" MODE="$mode" "$@"
}

build_release() {
    need build vendored
    compile release
    ln -sf build/splitinf splitinf
}

command=${1:-build}
[ $# = 0 ] || shift
case $command in
build)
    build_release
    say "built ./splitinf; $(./splitinf --version | sed -n 's/^backends: //p')"
    ;;
demo)
    build_release
    exec test/demo.sh
    ;;
test)
    mode=${1:-release}
    case $mode in
    release) dir=build ;;
    debug | tsan) dir=build-$mode ;;
    *) die "./build.sh test $mode: the modes are release, debug and tsan" ;;
    esac
    need build vendored test
    [ "$mode" != release ] || build_release
    compile "$mode" all unit replay loads
    exec test/run.sh "$dir"
    ;;
debug | tsan)
    need build vendored
    compile "$command"
    say "built build-$command/splitinf"
    ;;
static)
    need build vendored
    compile static
    ln -sf build-static/splitinf splitinf-static
    say "built ./splitinf-static"
    ;;
fuzz)
    need build vendored fuzz
    CC=clang compile fuzz fuzz
    exec test/fuzz/run.sh build-fuzz "${1:-60}"
    ;;
bench)
    build_release
    exec ./splitinf bench --kernels "$@"
    ;;
packages)
    for what; do
        case $what in
        build | test | fuzz | lint | arm64) need "$what" ;;
        *) die "./build.sh packages $what: there are build, test, fuzz, lint and arm64" ;;
        esac
    done
    ;;
install)
    build_release
    prefix=${DESTDIR:-}${1:-/usr/local}
    install -d "$prefix/bin" "$prefix/share/doc/splitinf/licences"
    install -m 755 build/splitinf "$prefix/bin/splitinf"
    install -m 644 README.md LICENSE "$prefix/share/doc/splitinf/"
    install -m 644 vendor/build/licences/* "$prefix/share/doc/splitinf/licences/"
    for package in libpcre2-dev libutf8proc-dev libevent-dev libedit-dev libbsd-dev libmd-dev; do
        [ ! -r "/usr/share/doc/$package/copyright" ] ||
            install -m 644 "/usr/share/doc/$package/copyright" "$prefix/share/doc/splitinf/licences/$package"
    done
    say "installed $prefix/bin/splitinf"
    ;;
clean)
    make --no-print-directory -s clean
    case ${1:-} in
    '') ;;
    all) rm -rf vendor/build vendor/src ;;
    *) die "./build.sh clean $1: clean, or clean all" ;;
    esac
    ;;
-h | --help | help)
    usage
    ;;
*)
    say "error: ./build.sh $command: there is no such command"
    usage >&2
    exit 2
    ;;
esac
