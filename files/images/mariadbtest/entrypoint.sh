#!/bin/sh
# As the official image does with MARIADB_ALLOW_EMPTY_ROOT_PASSWORD: makes the system tables once, runs *.sql of
# /docker-entrypoint-initdb.d on a server without a network, then becomes the server.
set -e
if [ "$1" = mariadbd ] && [ ! -d /var/lib/mysql/mysql ]; then
  mariadb-install-db --auth-root-authentication-method=normal --skip-test-db --datadir=/var/lib/mysql >/dev/null
  "$@" --skip-networking &
  until mariadb-admin --user=root ping --silent 2>/dev/null; do sleep 0.2; done
  for file in /docker-entrypoint-initdb.d/*.sql; do
    [ ! -f "$file" ] || mariadb --user=root mysql <"$file"
  done
  kill "$!"
  wait "$!"
fi
exec "$@"
