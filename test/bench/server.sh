# For the scripts that measure a serve-cloud process: $BUILD names the build. Read with "."; ends with the script.
dir=$(mktemp -d)
server=
server_end() {
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
    address=$(sed 's/^ready \(.*\) pin .*/\1/' "$dir/ready")
    # shellcheck disable=SC2034 # for the scripts that read this one
    pin=$(sed 's/.* pin //' "$dir/ready")
}
