# Debian's PostgreSQL, run from the state directory, where Vault makes its users.
# shellcheck shell=bash

POSTGRES=$STATE/postgres

# In a directory of its own, since it may not be able to return to ours.
AS_POSTGRES=(env -C "$POSTGRES" setpriv --reuid postgres --regid postgres --init-groups --)

# Superuser, on the socket: no password, and no one else may go there.
postgres_sql() {
  "${AS_POSTGRES[@]}" psql --host "$POSTGRES/run" --quiet --no-psqlrc --set ON_ERROR_STOP=1 "$@"
}

postgres_up() {
  local programs
  programs=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
  if [[ ! -e $POSTGRES/data/PG_VERSION ]]; then
    say "making a PostgreSQL database"
    install -d -o postgres -g postgres -m 700 "$POSTGRES" "$POSTGRES/data" "$POSTGRES/run"
    "${AS_POSTGRES[@]}" "$programs/initdb" --pgdata data --auth-local peer --auth-host scram-sha-256 \
      --encoding UTF8 --locale C --no-sync >/dev/null
    echo "host all all $POD_SUBNET scram-sha-256" >>"$POSTGRES/data/pg_hba.conf"
  fi

  start postgres "${AS_POSTGRES[@]}" "$programs/postgres" -D data -k "$POSTGRES/run" \
    -c listen_addresses="$ADDRESS" -c fsync=off -c log_connections=on -c log_disconnections=on
  started postgres 60 "$programs/pg_isready" --host "$POSTGRES/run"

  if [[ ! -e $POSTGRES/vault-password ]]; then
    (umask 077 && openssl rand -hex 16 >"$POSTGRES/vault-password")
    # The owner of a database may use its schema `public`, and grant its use.
    postgres_sql postgres <<EOF
CREATE ROLE vault LOGIN CREATEROLE PASSWORD '$(cat "$POSTGRES/vault-password")';
CREATE DATABASE app OWNER vault;
\\connect app
SET ROLE vault;
CREATE TABLE greeting (words text);
INSERT INTO greeting VALUES ('hello');
EOF
  fi
  host_service vault postgres 5432
}
