#!/bin/sh
# The house keeps its shape (docs/design.md): who may include whom, how large a file may be, what may print or exit.
. test/lib.sh

sources() { find core tok net gpu cmd main.c -name '*.[ch]' 2>/dev/null; }

# forbid WHERE PATTERN WHAT: no source under WHERE includes what PATTERN names.
forbid() {
    found=$(find "$1" -name '*.[ch]' -exec grep -nE "^[[:space:]]*#[[:space:]]*include[[:space:]]*\"($2)/" {} + 2>/dev/null)
    [ -z "$found" ] || { echo "$found" >&2; return 1; }
}
check "core stands on nothing but itself" forbid core 'net|tok|gpu|cmd'
check "tok knows neither the network nor the commands" forbid tok 'net|gpu|cmd'
check "net knows no commands" forbid net cmd
check "gpu knows neither the network nor the commands" forbid gpu 'net|cmd'

# Comments are left out; a word in a string would be found too, and is as suspicious.
quiet() {
    found=$(find core tok net gpu -name '*.c' -exec grep -nE '(^|[^a-z_])(printf|puts|putchar|perror|exit|abort|assert) ?\(' {} + 2>/dev/null |
        grep -vE ':[0-9]+: *(/?\*|//)')
    [ -z "$found" ] || { echo "$found" >&2; return 1; }
}
check "only commands print to a person, exit or assert" quiet

# (vec_*.h are no interfaces: each is the body of one instruction set.)
sizes() {
    found=$(sources | grep -v '^core/cpu/vec_' | xargs wc -l | awk '$2 != "total" && ($1 > 800 || ($2 ~ /\.h$/ && $1 > 150)) { print $2, $1 }')
    [ -z "$found" ] || { echo "$found" >&2; return 1; }
}
check "no source over 800 lines, no header over 150" sizes

first_comment() {
    found=$(sources | while IFS= read -r f; do
        case $(head -n 1 "$f") in "/* $f - "*) ;; *) case $f in *.h) echo "$f" ;; esac ;; esac
    done)
    [ -z "$found" ] || { echo "headers that do not start with their path and what they own: $found" >&2; return 1; }
}
check "every header says first what it owns" first_comment
