#!/usr/bin/env bash
# Holds a real server to the OpenAPI document that it serves, on SQLite and on PostgreSQL: schemathesis makes up requests
# that the document allows and others that it does not, and judges the answers with all of its checks. Fails on what it
# finds.
#
#   fuzz/schemathesis.sh [OPTION OF `schemathesis run` …]
#
#   fuzz/schemathesis.sh --max-examples 1000     more requests of each operation than the 100 that are made up otherwise
#   fuzz/schemathesis.sh --max-time 600          as many as there is time for, in seconds for each store
#   STORES=sqlite fuzz/schemathesis.sh           on one store
#
# Needs Python 3.11 with venv, PostgreSQL's server binaries, and the network for the first time: schemathesis is installed
# below target/. Without options it takes two minutes a store.
set -euo pipefail
. "$(dirname "$0")/server.sh"

version=4.32.5
venv=$root/target/schemathesis-$version

if [ ! -x "$venv/bin/schemathesis" ]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install -q "schemathesis==$version"
fi
cargo build --locked

# PostgreSQL refuses to run as root. Waits until it takes connections, and sets DATABASE_URL.
start_postgres() {
  local binaries as_whom=() port
  binaries=$(dirname "$(ls /usr/lib/postgresql/*/bin/initdb 2>/dev/null | sort -V | tail -1)")
  [ -x "$binaries/initdb" ] || binaries=$(dirname "$(command -v initdb)")
  port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  mkdir "$work/postgres"
  if [ "$(id -u)" = 0 ]; then
    chmod 711 "$work"
    chown nobody:nogroup "$work/postgres"
    as_whom=(setpriv --reuid nobody --regid nogroup --clear-groups)
  fi
  cd "$work/postgres"
  "${as_whom[@]}" "$binaries/initdb" -D data -U keyward --auth trust --no-sync -E UTF8 --locale C >/dev/null
  "${as_whom[@]}" "$binaries/postgres" -D data -p "$port" -c listen_addresses=127.0.0.1 -c unix_socket_directories= \
    -c fsync=off >log 2>&1 &
  running+=($!)
  until "$binaries/pg_isready" -q -h 127.0.0.1 -p "$port"; do
    kill -0 "$!" || { cat log; exit 1; }
    sleep 0.1
  done
  export DATABASE_URL=postgres://keyward@127.0.0.1:$port/postgres
}

export KEYWARD=$root/target/debug/keyward KEYWARD_DB=$work/keyward.db
failed=0
for store in ${STORES:-sqlite postgres}; do
  case $store in
    # The key set is to have something in it, once.
    sqlite) export JWT_ALG=EdDSA ;;
    postgres)
      unset JWT_ALG
      export JWT_SECRET=$(head -c 32 /dev/urandom | base64) JWT_REFRESH_SECRET=$(head -c 32 /dev/urandom | base64)
      start_postgres
      ;;
    *) echo "STORES: sqlite and postgres are known, not $store" >&2; exit 2 ;;
  esac
  cd "$work"
  start_keyward "$work/$store.log" MAX_KEYS_PER_USER=1000000 RATE_LIMIT_REFRESH=off RATE_LIMIT_FAILED_KEYS=off \
    RATE_LIMIT_WRITES=off WEBHOOKS=users DATA_KEY="$(printf '7%.0s' {1..64})"
  echo "== $store: process $keyward at $address"
  PYTHONPATH=$root/fuzz PYTHONDONTWRITEBYTECODE=1 SCHEMATHESIS_HOOKS=schemathesis_hooks "$venv/bin/schemathesis" run \
    "$address/api/docs/openapi.json" --checks all --phases examples,coverage,fuzzing,stateful --mode all \
    --max-examples 100 --continue-on-failure "$@" || failed=1
  # It must be there still, and have had no fault.
  kill -0 "$keyward" || failed=1
  if grep -qE ' ERROR |panicked' "$work/$store.log"; then failed=1; fi
  # Why something was a 503; of queries that gateways would not send there are thousands.
  if [ "$failed" != 0 ]; then grep -vE ' INFO |a gateway.s request is denied' "$work/$store.log" | tail -20 || true; fi
done
exit "$failed"
