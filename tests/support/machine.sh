#!/bin/bash
# Boots systemd on a copy of this machine's files, in namespaces of its own: nothing of it is left
# when its first process is gone.  Usage: machine.sh PLACE ROOT PYTHON_PREFIX [boot]
set -eu
place=$1 root=$2 prefix=$3
if [ "${4:-}" != boot ]; then
  # A control group of its own first, so that systemd sees no other as its root.
  mkdir -p "$place/cgroup"
  mount -t cgroup2 cgroup2 "$place/cgroup"
  mkdir "$place/cgroup/$(basename "$place")"
  echo $$ > "$place/cgroup/$(basename "$place")/cgroup.procs"
  exec unshare --mount --pid --fork --kill-child --uts --ipc --cgroup \
    "$0" "$place" "$root" "$prefix" boot
fi
mount --make-rprivate /
mkdir -p "$place/fs"
mount -t tmpfs tmpfs "$place/fs"
mkdir "$place"/fs/{changes,work,new}
new=$place/fs/new
mount -t overlay overlay -o "lowerdir=/,upperdir=$place/fs/changes,workdir=$place/fs/work" "$new"
mount -t proc proc "$new/proc"
# The kernel's settings are the machine's.
mount --bind /proc/sys "$new/proc/sys"
mount -o remount,ro,bind "$new/proc/sys"
mount -t sysfs -o ro sysfs "$new/sys"
mount -t tmpfs tmpfs "$new/sys/fs/cgroup" || true
mount -t cgroup2 cgroup2 "$new/sys/fs/cgroup"
for each in run tmp dev; do mount -t tmpfs -o mode=1777 tmpfs "$new/$each"; done
for each in null zero full random urandom tty; do
  touch "$new/dev/$each"
  mount --bind "/dev/$each" "$new/dev/$each"
done
mknod -m 666 "$new/dev/ptmx" c 5 2
mkdir "$new/dev/shm"
# Nothing of what this machine starts; and what its generators would find.
lib=/usr/lib/systemd
rm -rf "$new"$lib/system-generators "$new"$lib/system/{sysinit,basic}.target.wants "$new"/etc/systemd/system
mkdir -p "$new"/etc/systemd/system "$new"/opt/shoal/{src,base}
mount --bind "$root" "$new/opt/shoal/src"
mount --bind "$prefix" "$new/opt/shoal/base"
cp -a "$place/files/." "$new/"
systemd-sysusers --root="$new" shoal.conf
chown -R shoal:shoal "$new/var/lib/shoal" 2>/dev/null ||
  chown -R "$(awk -F: '$1 == "shoal" {print $3 ":" $4}' "$new/etc/passwd")" "$new/var/lib/shoal"
cd "$new"
mkdir old
pivot_root . old
umount -l old
exec env -i container=shoal-test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
  $lib/systemd --unit=machine.target --log-target=journal-or-kmsg --show-status=no < /dev/null
