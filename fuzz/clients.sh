#!/usr/bin/env bash
# Generates clients from the OpenAPI document of a real server, compiles them in the strictest mode of their language, and
# takes a tour of the server with each: sign up, log in, create a key, use it, verify it, revoke it.
#
#   fuzz/clients.sh
#
# Needs npm, Python 3.11 with venv, curl, and the network: the generators are installed below a temporary folder. That takes a
# minute.
set -euo pipefail
. "$(dirname "$0")/server.sh"

# Generators, and what their clients need. Node.js is pinned as well, because @hey-api/openapi-ts needs a newer one than
# distributions have.
npm_packages=(
  openapi-typescript@7.13.0 openapi-fetch@0.17.0
  @hey-api/openapi-ts@0.99.0
  typescript@5.9.3 @types/node@24.10.1 node@24.21.0
)
pip_packages=(openapi-python-client==0.29.1 mypy==2.4.1)

cargo build --locked
cd "$work"
start_keyward "$work/keyward.log" KEYWARD_DB="$work/keyward.db"
export KEYWARD_URL=$address
document=$KEYWARD_URL/api/docs-json

# The key of a service that may verify others' keys.
post() { curl -sSf "$KEYWARD_URL$1" -H 'Content-Type: application/json' "${@:3}" -d "$2"; }
field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
access=$(post /auth/signup '{"email": "service@example.com", "password": "Password123!"}' | field accessToken)
KEYWARD_DB=$work/keyward.db RUST_LOG=warn "$root/target/debug/keyward" user grant service@example.com keys:verify >/dev/null
SERVICE_KEY=$(post /keys/create '{"name": "service", "scopes": ["keys:verify"]}' -H "Authorization: Bearer $access" |
  field key)
export SERVICE_KEY

mkdir typescript python
cd "$work/typescript"
cp "$root"/fuzz/clients/*.ts .
cat >package.json <<'END'
{ "type": "module" }
END
cat >tsconfig.json <<'END'
{ "compilerOptions": { "strict": true, "target": "es2023", "module": "nodenext", "types": ["node"], "outDir": "out" } }
END
# Node.js reads no imports without an extension.
cat >openapi-ts.config.mjs <<END
export default { input: '$document', output: { path: 'hey-api', module: { extension: '.js' } } };
END
npm install --silent --no-audit --no-fund "${npm_packages[@]}"
PATH=$PWD/node_modules/.bin:$PATH
openapi-typescript "$document" -o schema.d.ts
openapi-ts -f openapi-ts.config.mjs --no-log-file
tsc
for client in openapi-typescript hey-api; do
  echo "== $client"
  node "out/$client.js"
done

cd "$work/python"
cp "$root"/fuzz/clients/*.py .
python3 -m venv venv
venv/bin/pip install -q "${pip_packages[@]}"
# It would format what it made with a tool that is not installed.
echo 'post_hooks: []' >config.yml
venv/bin/openapi-python-client generate --url "$document" --config config.yml --meta none --output-path keyward_client \
  --fail-on-warning
venv/bin/mypy --strict keyward_client openapi_python_client.py
echo "== openapi-python-client"
venv/bin/python openapi_python_client.py
