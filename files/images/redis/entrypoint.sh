#!/bin/sh
# As in the official image: options or a *.conf alone mean redis-server; started as root it owns /data and steps down.
set -e
if [ "${1#-}" != "$1" ] || [ "${1%.conf}" != "$1" ]; then
  set -- redis-server "$@"
fi
if [ "$1" = redis-server ] && [ "$(id -u)" = 0 ]; then
  find . \! -user redis -exec chown redis '{}' +
  exec gosu redis "$@"
fi
# Data must not be readable by others.
[ "$1" != redis-server ] || umask 0077
exec "$@"
