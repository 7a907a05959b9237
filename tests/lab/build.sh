#!/usr/bin/env bash
# build.sh OUT: an ARM64 Linux machine with the genuine adbd and sshd, for QEMU:
# OUT/{vmlinuz,initrd.gz,root.ext4,key,host_key.pub}. Nothing is emulated while building (about half a minute).
# Debian packages needed: mmdebstrap qemu-system-arm cpio e2fsprogs openssh-client xz-utils, and a Python with pip.
# EDGEPRUNE_LAB_MIRROR: the Debian mirror, where apt's own sources do not name one.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
pins=$here/../../constraints.txt
python=${PYTHON:-python3}
out=$(mkdir -p "$1" && cd "$1" && pwd)
mirror=${EDGEPRUNE_LAB_MIRROR:-$(cat /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null |
  sed -n 's/^URIs: *//p; s/^deb \([^ []*\) .*/\1/p' | grep debian | head -n 1 || true)}
mirror=${mirror:-http://deb.debian.org/debian}
root=$out/root ram=$out/initrd
rm -rf "$root" "$ram"

# trixie: the first stable suite that has adbd. 'extract' runs no maintainer scripts, so the files below are written by hand.
mmdebstrap --quiet --arch=arm64 --variant=extract --keyring=/usr/share/keyrings/debian-archive-keyring.gpg \
  --include=base-files,base-passwd,bash,bsdutils,coreutils,dash,debianutils,diffutils,findutils,grep,gzip,hostname,libc-bin,login,mount,sed,tar,util-linux,mawk,adbd,openssh-server,openssh-sftp-server,python3,busybox-static,iproute2,libgomp1,procps,kmod,passwd,linux-image-cloud-arm64 \
  trixie "$root" "deb $mirror trixie main"

modules=$(ls -d "$root"/usr/lib/modules/*)
cp "$root"/boot/vmlinuz-* "$out/vmlinuz"
mkdir -p "$ram"/{bin,mods,proc,sys,dev,newroot}
cp "$root/usr/bin/busybox" "$ram/bin/"
for m in virtio_blk failover net_failover virtio_net; do xz -dc "$(find "$modules" -name "$m.ko.xz")" >"$ram/mods/$m.ko"; done
cat >"$ram/init" <<'INIT'
#!/bin/busybox sh
B=/bin/busybox
$B mount -t proc proc /proc; $B mount -t sysfs sys /sys; $B mount -t devtmpfs dev /dev
for m in virtio_blk failover net_failover virtio_net; do $B insmod /mods/$m.ko; done
i=0; while [ ! -b /dev/vda ] && [ $i -lt 50 ]; do $B sleep 0.1; i=$((i+1)); done
$B mount -t ext4 -o rw,noatime /dev/vda /newroot || exec $B sh
$B umount /proc; $B umount /sys; $B mount --move /dev /newroot/dev
exec $B switch_root /newroot /sbin/lab-init
INIT
chmod +x "$ram/init"
(cd "$ram" && find . | cpio -o -H newc --quiet | gzip -1 >"$out/initrd.gz")

[ -f "$out/key" ] || ssh-keygen -q -t ed25519 -N '' -C lab -f "$out/key"
mkdir -p "$root"/{data/local/tmp,root/.ssh,etc/ssh}
cp "$out/key.pub" "$root/root/.ssh/authorized_keys"
chmod 700 "$root/root" "$root/root/.ssh"
ssh-keygen -q -t ed25519 -N '' -C labarm -f "$root/etc/ssh/ssh_host_ed25519_key" <<<y >/dev/null
cp "$root/etc/ssh/ssh_host_ed25519_key.pub" "$out/host_key.pub"
cat >"$root/etc/ssh/sshd_config" <<'CONF'
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
UseDNS no
Subsystem sftp /usr/lib/openssh/sftp-server
CONF
printf 'root:x:0:0:root:/root:/bin/bash\nsshd:x:100:65534::/run/sshd:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n' >"$root/etc/passwd"
printf 'root:x:0:\ntty:x:5:\nshadow:x:42:\nnogroup:x:65534:\n' >"$root/etc/group"
printf 'root:*:19000:0:99999:7:::\nsshd:*:19000:0:99999:7:::\n' >"$root/etc/shadow"
printf 'passwd: files\ngroup: files\nshadow: files\nhosts: files\n' >"$root/etc/nsswitch.conf"
printf '127.0.0.1 localhost labarm\n' >"$root/etc/hosts"
printf 'ro.product.cpu.abi=arm64-v8a\nro.product.model=Virtual ARM64\nro.build.version.sdk=34\nro.build.version.release=14\n' >"$root/etc/build.prop"
cat >"$root/usr/bin/getprop" <<'PROP'
#!/bin/sh
# What Android's getprop answers, from /etc/build.prop.
if [ $# -eq 0 ]; then sed -n 's/^\([^#=]*\)=\(.*\)$/[\1]: [\2]/p' /etc/build.prop
else sed -n "s/^$(printf %s "$1" | sed 's/\./\\./g')=//p" /etc/build.prop; fi
PROP
cat >"$root/usr/sbin/lab-init" <<'START'
#!/bin/busybox sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mkdir -p /dev/pts /dev/shm /run/sshd; chmod 755 /run/sshd
mount -t devpts -o ptmxmode=0666,mode=0620 devpts /dev/pts; mount -t tmpfs shm /dev/shm
ip link set lo up; ip addr add 10.0.2.15/24 dev eth0; ip link set eth0 up; ip route add default via 10.0.2.2
hostname labarm
/usr/sbin/sshd -o LogLevel=ERROR
HOME=/root ADBD_PORT=5555 /usr/lib/android-sdk/platform-tools/adbd >/var/log/adbd.log 2>&1 &
listens() { grep -q ":$1 [0-9A-F]*:0000 0A" /proc/net/tcp /proc/net/tcp6; }
until listens 0016 && listens 15B3; do busybox sleep 0.1; done
echo "LAB-READY $(cut -d' ' -f1 /proc/uptime)" >/dev/console
exec busybox sh -c 'trap "" TERM; while :; do sleep 3600; done'
START
chmod +x "$root/usr/bin/getprop" "$root/usr/sbin/lab-init"

# The runtimes, where `pip install` puts them on an ARM64 board: plain python3 finds them (Python 3.13 is trixie's).
"$python" -m pip install -q --disable-pip-version-check --no-compile --root-user-action ignore -c "$pins" \
  --target "$root/usr/local/lib/python3.13/dist-packages" --implementation cp --python-version 313 --only-binary=:all: \
  --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64 \
  numpy ai-edge-litert
rm -rf "$root"/usr/share/{doc,man,locale} "$root/boot" "$modules" "$root"/var/{cache,lib}/apt
size=$(($(du -sm "$root" | cut -f1) + 330))
rm -f "$out/root.ext4"
mke2fs -q -F -t ext4 -m 0 -J size=8 -d "$root" "$out/root.ext4" "${size}M"
rm -rf "$root" "$ram"
