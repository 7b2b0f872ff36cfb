# First process of the lab after switch_root: runs /run/lab/command once and reports on the control port.
# Ports: vport0p1 control, vport0p2 standard output, vport0p3 standard error.
busybox=/run/lab/busybox
exec 3>/dev/vport0p1

$busybox mkdir -p /dev/pts /dev/shm
$busybox mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
$busybox mount -t tmpfs -o mode=1777 shm /dev/shm
$busybox mount -t cgroup2 cgroup2 /sys/fs/cgroup
$busybox ln -s /proc/self/fd /dev/fd
$busybox ln -s /proc/self/fd/0 /dev/stdin
$busybox ln -s /proc/self/fd/1 /dev/stdout
$busybox ln -s /proc/self/fd/2 /dev/stderr
$busybox mkdir -m 1777 /run/lab/tmp
$busybox ip link set lo up
if [ -c /dev/kvm ]; then
    $busybox chmod 666 /dev/kvm
else
    echo no-kvm >&3
fi

# Pipes, because a port can be opened only once: /dev/stderr must stay usable for the command.
$busybox mkfifo /run/lab/out /run/lab/err
$busybox cat /run/lab/out >/dev/vport0p2 3>&- &
out=$!
$busybox cat /run/lab/err >/dev/vport0p3 3>&- &
err=$!

echo ready >&3
while $busybox sleep 5; do echo alive >&3; done &
$busybox setsid /bin/sh /run/lab/command </run/lab/stdin >/run/lab/out 2>/run/lab/err 3>&-
status=$?

# A daemon the command left behind may hold the pipes open: it is given a moment, then cut off.
{ $busybox sleep 5; kill $out $err; } >/dev/null 2>&1 3>&- &
wait $out $err
$busybox sync
echo "exit $status" >&3
$busybox poweroff -f
