#!/usr/bin/env bash
# Shows that receivers which nobody here wrote accept what Keyward sends, and nothing else: the `standardwebhooks` packages
# of npm and PyPI verify deliveries, also while a secret changes, and refuse altered ones and other secrets.
#
#   fuzz/webhooks.sh
#
# Needs Node 20 with npm, Python 3.11 with venv, curl, and the network: the libraries are installed in a temporary folder.
set -euo pipefail
cd "$(dirname "$0")/.."

npm_packages=(standardwebhooks@1.1.1)
python_packages=(standardwebhooks==1.1.0)

root=$PWD
work=$(mktemp -d)
processes=()
finish() {
  for process in "${processes[@]}"; do
    kill "$process" 2>/dev/null || true
    wait "$process" 2>/dev/null || true
  done
  rm -rf "$work"
}
trap finish EXIT

cargo build --locked
cd "$work"
cp "$root/fuzz/webhooks.mjs" .
npm install --silent --no-audit --no-fund --ignore-scripts "${npm_packages[@]}"
python3 -m venv venv
venv/bin/pip install -q "${python_packages[@]}"

port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
keyward=http://127.0.0.1:$(port)
receiver=http://127.0.0.1:$(port)

# Whatever it gets, one line each.
touch deliveries.jsonl
venv/bin/python "$root/fuzz/webhooks.py" receive "${receiver##*:}" deliveries.jsonl &
processes+=($!)
export KEYWARD_DB=$work/keyward.db
RUST_LOG=info,access=off HOST=127.0.0.1 PORT=${keyward##*:} WEBHOOKS=users WEBHOOK_NETWORKS=127.0.0.1 \
  "$root/target/debug/keyward" 2>keyward.log &
processes+=($!)
until grep -q 'listening on http://' keyward.log && curl -s -o /dev/null "$receiver"; do
  kill -0 "${processes[@]}" || { cat keyward.log; exit 1; }
  sleep 0.1
done

ask() { curl -sS --fail-with-body -H 'content-type: application/json' -H "authorization: Bearer ${ACCESS:-}" "$@"; }
# Makes a key of this name, and waits until the endpoint is told.
tell() {
  ask "$keyward/keys/create" -d "{\"name\":\"$1\"}" >/dev/null
  for _ in $(seq 100); do
    if [ "$(grep -c key.created deliveries.jsonl)" = "$2" ]; then return; fi
    sleep 0.1
  done
  cat keyward.log
  exit 1
}
ACCESS=$(ask "$keyward/auth/signup" -d '{"email":"ann@example.com","password":"correct horse battery"}' | field accessToken)
made=$(ask "$keyward/webhooks" -d "{\"url\":\"$receiver/\",\"types\":[\"key.created\"]}")
OLD=$(field secret <<<"$made")
tell before 1
NEW=$(ask "$keyward/webhooks/$(field id <<<"$made")/rotate-secret" -d '{}' | field secret)
tell during 2
export OLD NEW
node webhooks.mjs deliveries.jsonl
venv/bin/python "$root/fuzz/webhooks.py" verify deliveries.jsonl
# No secret is in the log.
if grep -qF -e "$OLD" -e "$NEW" -e "$ACCESS" keyward.log; then cat keyward.log; exit 1; fi
if grep -qE ' ERROR |panicked' keyward.log; then cat keyward.log; exit 1; fi
