#!/bin/sh
# Make .venv with the pinned tools: `bootstrap.sh` what deploys, `bootstrap.sh test` what tests as well.
# Needs Python 3.11 or later; installs Debian's or Ubuntu's python3-venv when that is missing. Does nothing when all is there.
set -eu
cd "$(dirname "$0")"
wanted=requirements.txt
[ "${1:-}" != test ] || wanted=requirements-test.txt

python=
for candidate in python3 python3.13 python3.12 python3.11; do
  if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    python=$candidate
    break
  fi
done
if [ -z "$python" ]; then
  echo "Python 3.11 or later is needed, and python3 here is $(python3 --version 2>&1). On Debian 12 or later: apt install python3" >&2
  exit 1
fi

# Debian and Ubuntu package a part of venv on its own
if ! "$python" -c 'import ensurepip' 2>/dev/null; then
  echo "Installing python3-venv"
  as_root=
  [ "$(id -u)" = 0 ] || as_root=sudo
  $as_root apt-get update -q
  $as_root apt-get install -y -q --no-install-recommends python3-venv
fi

stamp=.venv/.made-from
made_from=$(cat "$wanted" constraints.txt requirements.yml | sha256sum)
if [ -f "$stamp" ] && grep -qxF "$wanted $made_from" "$stamp"; then
  exit 0
fi
echo "Making .venv from $wanted (a minute or two)"
[ -x .venv/bin/python ] || "$python" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement "$wanted" --constraint constraints.txt
# the collections come with the ansible package; this fails when a pin in requirements.yml is another one
.venv/bin/ansible-galaxy collection install --requirements-file requirements.yml >/dev/null
echo "$wanted $made_from" >>"$stamp"
