#!/bin/sh
# A container's /sys, control groups and parts of /proc are mounted read-only; systemd and a Docker of its own write there.
# Mounting them anew takes CAP_SYS_ADMIN, but not a privileged container.
awk '$2 ~ "^/sys($|/fs/cgroup)" || $2 ~ "^/proc/(bus|fs|irq|sys)" {print $2}' /proc/mounts |
  while read -r path; do
    mount -o remount,bind,rw "$path" || echo "boot: $path stays read-only" >&2
  done
# Docker passes mounts on to its containers
mount --make-rshared /
exec /sbin/init
