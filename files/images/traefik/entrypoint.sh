#!/bin/sh
# As in the official image: options alone, or a sub-command, are given to traefik.
set -e
if [ "${1#-}" != "$1" ] || traefik "$1" --help >/dev/null 2>&1; then
  set -- traefik "$@"
fi
exec "$@"
