# shellcheck shell=sh
# For the scripts that measure a serve-cloud process: $BUILD names the build. Read with "."; ends with the script.
dir=$(mktemp -d)
server=
server_end() {
    # shellcheck disable=SC2015 # both have to be tried
    [ -z "$server" ] || { kill "$server" 2>/dev/null && wait "$server" 2>/dev/null || :; }
    rm -rf "$dir"
}
trap server_end EXIT
trap 'exit 130' INT TERM

# server_start OPTION...: sets $server (its process), $address and $pin; $dir/client is the home of the client that it serves.
server_start() {
    "$BUILD/splitinf" serve-cloud --home "$dir/cloud" --listen 127.0.0.1:0 \
        --allow "$("$BUILD/splitinf" identity --home "$dir/client")" "$@" >"$dir/ready" 2>"$dir/log" </dev/null &
    server=$!
    until [ -s "$dir/ready" ]; do
        kill -0 $server 2>/dev/null || { cat "$dir/log" >&2; exit 1; }
        sleep 0.1
    done
    # shellcheck disable=SC2034 # these two are for the scripts that read this one
    address=$(sed 's/^ready \(.*\) pin .*/\1/' "$dir/ready")
    # shellcheck disable=SC2034 # as well
    pin=$(sed 's/.* pin //' "$dir/ready")
}
