#!/bin/sh
# Start pebble. Whoever asks it for certificates trusts /pki/ca.crt, made here, and reaches it under one of the names given
# (`pebble` without any):   https://<name>:14000/dir
# It asks the names for its challenges at ports 80 and 443, and gives certificates of 90 days, as Let's Encrypt does. Their
# root, another one at every start, is at https://<name>:15000/roots/0.
set -eu
[ $# -gt 0 ] || set -- pebble
names=$(printf ',DNS:%s' "$@")
mkdir -p /pki && cd /pki
if [ ! -e ca.crt ]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj '/CN=Test authority' \
    -keyout ca.key -out ca.crt 2>/dev/null
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj "/CN=$1" \
    -CA ca.crt -CAkey ca.key -addext "subjectAltName=${names#,}" -addext basicConstraints=CA:FALSE \
    -keyout pebble.key -out pebble.crt 2>/dev/null
fi
cat >pebble.json <<JSON
{"pebble": {
  "listenAddress": "0.0.0.0:14000", "managementListenAddress": "0.0.0.0:15000",
  "certificate": "/pki/pebble.crt", "privateKey": "/pki/pebble.key",
  "httpPort": 80, "tlsPort": 443, "ocspResponderURL": "", "externalAccountBindingRequired": false,
  "certificateValidityPeriod": 7776000
}}
JSON
export PEBBLE_VA_NOSLEEP=1 # a challenge is checked at once
exec pebble -config pebble.json
