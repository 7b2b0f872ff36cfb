#!/bin/busybox sh
# First process of the lab, in the initramfs: loads the modules, puts a throw-away writable layer over the
# host's file system, and hands over to run.sh in it. Everything comes from /lab, written by xtask.
/bin/busybox mkdir -p /proc /sys /dev /host /layer /newroot
/bin/busybox mount -t proc proc /proc
/bin/busybox --install -s /bin
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
echo "lab: loading modules" >/dev/console

# The list is in dependency order; a module that is built into this kernel has no file.
while read -r module; do
    [ ! -f "/lab/modules/$module.ko" ] || insmod "/lab/modules/$module.ko" >/dev/console 2>&1
done </lab/modules/order

echo "lab: mounting the host's files" >/dev/console
mount -t virtiofs host /host
mount -t tmpfs -o mode=755 layer /layer
mkdir /layer/upper /layer/work
mount -t overlay -o lowerdir=/host,upperdir=/layer/upper,workdir=/layer/work overlay /newroot

# A share is the one way out of the throw-away layer.
while IFS= read -r share; do
    mount --bind "/host$share" "/newroot$share"
done </lab/shares
umount -l /host

mount -t tmpfs -o mode=755 run /newroot/run
mkdir -p /newroot/run/lab
cp /bin/busybox /lab/run.sh /lab/command /lab/stdin /newroot/run/lab/
for dir in proc sys dev; do
    mkdir -p "/newroot/$dir"
    mount --move "/$dir" "/newroot/$dir"
done
exec switch_root /newroot /run/lab/busybox sh /run/lab/run.sh
