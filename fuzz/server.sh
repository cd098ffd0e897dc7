# For the scripts beside this one: $work, a folder that goes when the script ends, and servers that end with it. Changes to
# the root of the repository, $root.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
work=$(mktemp -d)
running=()
finish() {
  for pid in "${running[@]}"; do
    kill -INT "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  rm -rf "$work"
}
trap finish EXIT

# start_keyward LOG [SETTING=VALUE …]: waits until it answers, and sets $keyward to its process and $address to its URL.
start_keyward() {
  local log=$1
  shift
  : >"$log"
  env RUST_LOG=info,access=off HOST=127.0.0.1 PORT=0 RATE_LIMIT_SIGNUP=off RATE_LIMIT_LOGIN=off "$@" \
    "$root/target/debug/keyward" 2>"$log" &
  keyward=$!
  running+=("$keyward")
  until address=$(grep -om1 'listening on http://[0-9.:]*' "$log"); do
    kill -0 "$keyward" || { cat "$log"; exit 1; }
    sleep 0.1
  done
  address=${address#listening on }
}
