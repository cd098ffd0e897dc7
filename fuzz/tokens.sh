#!/usr/bin/env bash
# Shows that libraries which nobody here wrote find, verify and introspect Keyward's tokens: jose and openid-client (npm),
# PyJWT and Authlib (PyPI), for each algorithm with a key pair. Keyward speaks HTTPS at its issuer's address, so the
# libraries run as they are.
#
#   fuzz/tokens.sh                       EdDSA, ES256 and RS256
#   ALGORITHMS=ES256 fuzz/tokens.sh      one of them
#
# Needs Node 20 with npm, Python 3.11 with venv, curl, openssl, and the network: the libraries are installed in a temporary
# folder.
set -euo pipefail
cd "$(dirname "$0")/.."

npm_packages=(jose@6.2.18 openid-client@6.9.0)
python_packages=(PyJWT==2.15.1 Authlib==1.9.10 cryptography==50.0.2 requests==2.34.2)

root=$PWD
work=$(mktemp -d)
keyward=
finish() {
  if [ -n "$keyward" ]; then
    kill -INT "$keyward" 2>/dev/null || true
    wait "$keyward" 2>/dev/null || true
  fi
  rm -rf "$work"
}
trap finish EXIT

cargo build --locked
cd "$work"
cp "$root/fuzz/tokens.mjs" .
npm install --silent --no-audit --no-fund --ignore-scripts "${npm_packages[@]}"
python3 -m venv venv
venv/bin/pip install -q "${python_packages[@]}"
openssl req -x509 -nodes -newkey rsa:2048 -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost \
  -keyout tls.key -out tls.pem 2>/dev/null

ask() { curl -sS --fail-with-body --cacert tls.pem -H 'content-type: application/json' "$@"; }
field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }

for algorithm in ${ALGORITHMS:-EdDSA ES256 RS256}; do
  echo "== $algorithm"
  port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  export ALGORITHM=$algorithm ISSUER=https://localhost:$port AUDIENCE=https://api.example.com
  export KEYWARD_DB=$work/$algorithm.db
  RUST_LOG=info,access=off HOST=127.0.0.1 PORT=$port TLS_CERT=tls.pem TLS_KEY=tls.key JWT_ALG=$algorithm \
    JWT_ISSUER=$ISSUER JWT_AUDIENCE=$AUDIENCE "$root/target/debug/keyward" 2>"$algorithm.log" &
  keyward=$!
  until grep -q 'listening on https://' "$algorithm.log"; do
    kill -0 "$keyward" || { cat "$algorithm.log"; exit 1; }
    sleep 0.1
  done
  ACCESS=$(ask "$ISSUER/auth/signup" -d '{"email":"ann@example.com","password":"correct horse battery"}' | field accessToken)
  "$root/target/debug/keyward" user grant ann@example.com keys:verify orders:read >/dev/null
  key() { ask "$ISSUER/keys/create" -H "authorization: Bearer $ACCESS" -d "$1" | field key; }
  SECRET=$(key '{"name":"caller","scopes":["keys:verify"]}')
  KEY=$(key '{"name":"orders","scopes":["orders:read"]}')
  DERIVED=$(ask "$ISSUER/auth/token" -H "x-api-key: $KEY" -d '{}' | field accessToken)
  export ACCESS SECRET KEY DERIVED
  NODE_EXTRA_CA_CERTS=tls.pem node tokens.mjs
  SSL_CERT_FILE=tls.pem REQUESTS_CA_BUNDLE=tls.pem venv/bin/python "$root/fuzz/tokens.py"
  kill -INT "$keyward"
  wait "$keyward" || true
  keyward=
  if grep -qE ' ERROR |panicked' "$algorithm.log"; then cat "$algorithm.log"; exit 1; fi
  # No secret that was sent is in the log.
  if grep -qF -e "$SECRET" -e "$KEY" -e "$ACCESS" -e "$DERIVED" "$algorithm.log"; then cat "$algorithm.log"; exit 1; fi
done
