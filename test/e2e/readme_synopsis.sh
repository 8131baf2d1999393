#!/bin/sh
# README.md says of each command what its --help says: for every command that splitinf --help lists there is a block
#   ```synopsis
#   usage: splitinf COMMAND ...
#   ```
# whose lines are the "usage:" lines of splitinf COMMAND --help, in order, and there is no block of another command.
. test/lib.sh
readme=${README:-README.md}

in_readme() { # COMMAND
    awk -v want="usage: splitinf $1 " '/^```synopsis$/ { in_block = 1; next } /^```$/ { in_block = 0 }
        in_block && index($0, want) == 1' "$readme"
}
in_help() { "$SPLITINF" "$1" --help | grep '^usage: '; }
commands() { "$SPLITINF" --help | sed -n '/^Commands$/,/^$/s/^  \([a-z][a-z-]*\) .*/\1/p'; }

same() {
    in_help "$1" >"$SCRATCH/help"
    in_readme "$1" >"$SCRATCH/readme"
    [ -s "$SCRATCH/help" ] || { echo "splitinf $1 --help has no usage line" >&2; return 1; }
    diff "$SCRATCH/readme" "$SCRATCH/help" >&2 || { echo "$readme (<) and splitinf $1 --help (>) differ" >&2; return 1; }
}
if [ ! -f "$readme" ]; then
    echo "not ok README: there is no $readme"
    exit 1
fi
for command in $(commands); do
    check "README and $command --help agree" same "$command"
done
no_others() {
    commands >"$SCRATCH/commands"
    awk '/^```synopsis$/ { in_block = 1; next } /^```$/ { in_block = 0 } in_block && NF { print $2, $3 }' "$readme" |
        sort -u | while read -r program command; do
        { [ "$program" = splitinf ] && grep -qx -e "$command" "$SCRATCH/commands"; } || echo "$program $command"
    done >"$SCRATCH/others"
    [ ! -s "$SCRATCH/others" ] || { echo "$readme has a synopsis of what does not exist: $(cat "$SCRATCH/others")" >&2; return 1; }
}
check "README has no synopsis of a command that does not exist" no_others

# The comparison itself can fail.
fails_on() { # SED-SCRIPT: what it makes of the right text is found out
    { for command in $(commands); do printf '```synopsis\n'; in_help "$command"; printf '```\n'; done; } >"$SCRATCH/right.md"
    (readme=$SCRATCH/right.md; same chat && no_others) 2>/dev/null || return 1
    sed "$1" "$SCRATCH/right.md" >"$SCRATCH/wrong.md"
    ! (readme=$SCRATCH/wrong.md; same chat && no_others) 2>/dev/null
}
check "a README with another option is found out" fails_on 's/--model/--modle/'
check "a README with a line too many is found out" fails_on 's/^usage: splitinf chat .*/&\n&/'
check "a README with another command is found out" fails_on 's/^usage: splitinf chat .*/&\nusage: splitinf frobnicate/'
