#!/bin/sh
# Make a Debian base image from Debian's packages alone, where no container registry can be reached.
# It is laid out as the official debian:<suite>-slim: minimal, no documentation, no recommended packages, and no
# service started by an installation.
#
# usage: build.sh SUITE REFERENCE [MIRROR]     without a mirror, the one that debootstrap itself knows
set -eu
suite=$1 reference=$2 mirror=${3:-}
work=$(mktemp -d)
root=$work/root
trap 'rm -rf "$work"' EXIT

keyring=/usr/share/keyrings/debian-archive-keyring.gpg
debootstrap --variant=minbase --include=ca-certificates --keyring="$keyring" "$suite" "$root" ${mirror:+"$mirror"} >"$work/log" 2>&1 || {
  cat "$work/log" "$root/debootstrap/debootstrap.log" 2>/dev/null | tail -n 30 >&2
  exit 1
}

# debootstrap has written the mirror that it took
mirror=$(awk '$1 == "deb" { sub("/$", "", $2); print $2; exit }' "$root/etc/apt/sources.list")
cat >"$root/etc/apt/sources.list" <<END
deb $mirror $suite main
deb $mirror $suite-updates main
deb ${mirror%/debian}/debian-security $suite-security main
END
cat >"$root/etc/dpkg/dpkg.cfg.d/slim" <<'END'
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/info/*
path-exclude /usr/share/man/*
END
cat >"$root/etc/apt/apt.conf.d/slim" <<'END'
APT::Install-Recommends "0";
APT::Install-Suggests "0";
Acquire::Languages "none";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/*.bin || true"; };
END
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"

find "$root/usr/share/doc" -type f ! -name copyright -delete
rm -rf "$root"/usr/share/man/* "$root"/usr/share/info/* "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* \
  "$root"/var/log/*.log "$root"/var/log/apt/*
mkdir -p "$root/var/cache/apt/archives/partial"

tar -C "$root" --numeric-owner --one-file-system -c . |
  docker import -c 'CMD ["bash"]' \
    -c 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' - "$reference"
