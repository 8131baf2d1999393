#!/bin/sh
# build.sh: what it says and does about missing packages. Compilers and package tools are impostors in PATH.
. test/lib.sh

bin=$SCRATCH/bin
mkdir "$bin"
impostor() { cat >"$bin/$1" && chmod +x "$bin/$1"; }

# A compiler that does not find two libraries until apt-get has "installed" them.
impostor lacking-cc <<END
#!/bin/sh
case "\$*" in
*-print-file-name=libutf8proc.a*) [ -f "$SCRATCH/installed" ] || { echo libutf8proc.a; exit 0; } ;;
*-print-file-name=libmd.a*) [ -f "$SCRATCH/installed" ] || { echo libmd.a; exit 0; } ;;
esac
exec cc "\$@"
END
impostor id <<END
#!/bin/sh
cat "$SCRATCH/uid"
END
impostor sudo <<'END'
#!/bin/sh
echo "sudo: a password is required" >&2
exit 1
END
impostor apt-get <<END
#!/bin/sh
echo "\$*" >>"$SCRATCH/apt.log"
case "\$*" in
*install*) [ -f "$SCRATCH/lists" ] || exit 100; touch "$SCRATCH/installed" ;;
*update*) touch "$SCRATCH/lists" ;;
esac
END
# The build itself is of no interest here: a make that only says that it was reached.
impostor make <<END
#!/bin/sh
echo reached >>"$SCRATCH/make.log"
END

# A copy, so that nothing is written into the tree.
mkdir "$SCRATCH/copy" && cp -R build.sh vendor "$SCRATCH/copy/"
build() { (cd "$SCRATCH/copy" && PATH="$bin:$PATH" CC=lacking-cc ./build.sh); }

told() {
    echo 1000 >"$SCRATCH/uid"
    build >"$SCRATCH/out" 2>&1 && return 1
    has "$SCRATCH/out" "sudo apt-get install libutf8proc-dev libmd-dev" && [ ! -f "$SCRATCH/apt.log" ] && [ ! -f "$SCRATCH/make.log" ]
}
check "an ordinary user is told the exact command and nothing is changed" told

installed() {
    echo 0 >"$SCRATCH/uid"
    build >"$SCRATCH/out" 2>&1 || { cat "$SCRATCH/out" >&2; return 1; }
    has "$SCRATCH/out" "installing with apt-get: libutf8proc-dev libmd-dev" && has "$SCRATCH/make.log" reached &&
        has "$SCRATCH/apt.log" "install -y --no-install-recommends libutf8proc-dev libmd-dev" update
}
check "root gets them installed, with fresh package lists when that fails at first" installed

in_vain() {
    rm -f "$SCRATCH/installed" "$SCRATCH/make.log"
    printf '#!/bin/sh\nexit 0\n' | impostor apt-get
    build >"$SCRATCH/out" 2>&1 && return 1
    has "$SCRATCH/out" "still missing after the installation: libutf8proc-dev libmd-dev" && [ ! -f "$SCRATCH/make.log" ]
}
check "an installation that does not help is an error" in_vain

no_compiler() {
    (cd "$SCRATCH/copy" && echo 1000 >"$SCRATCH/uid" && PATH="$bin:$PATH" CC=no-such-cc ./build.sh) >"$SCRATCH/out" 2>&1 && return 1
    has "$SCRATCH/out" "sudo apt-get install build-essential"
}
check "a missing compiler is named" no_compiler

helps() {
    ./build.sh --help >"$SCRATCH/out" || return 1
    for word in demo test debug tsan static fuzz bench install clean; do
        has "$SCRATCH/out" "  $word" || return 1
    done
    ./build.sh no-such-command >"$SCRATCH/out" 2>&1
    [ $? = 2 ] && has "$SCRATCH/out" no-such-command usage:
}
check "help names every command, and an unknown one is a usage error" helps
