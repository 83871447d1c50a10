import t from "tap";
import { requires } from "../interop/support/requirements.js";
import { serveVolume } from "../interop/support/volume.js";
import { GUEST_NEEDS, Guest } from "./support/guest.js";

/**
 * First boot: the volume gets a root file system, which is then entered for good (switch_root). Its own init
 * writes files, syncs and reboots the machine. Second boot: the same init, started from the volume, reads back.
 */
const JOB = `
[ -b /dev/vda ]
if ! mount -t ext4 /dev/vda /mnt; then
  mkfs.ext4 -q -F /dev/vda
  mount -t ext4 /dev/vda /mnt
  mkdir -p /mnt/bin /mnt/sbin /mnt/proc /mnt/sys /mnt/dev /mnt/data
  cp /bin/busybox /mnt/bin/busybox
  cat >/mnt/sbin/init <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc none /proc
root=$(awk '$2 == "/" && $1 != "rootfs" { print $1 }' /proc/mounts | tail -n 1)
echo "GUEST root is $root"
if [ -e /data/sums ]; then
  cd /data && sha256sum -c sums
  code=$?
  dmesg | grep -E 'I/O error|Remounting filesystem' | sed 's/^/GUEST KERNEL /'
  mount -o remount,ro /
  sync
  echo "GUEST EXIT $code"
  poweroff -f
fi
for i in $(seq 1 40); do dd if=/dev/urandom of=/data/$i bs=4099 count=$i 2>/dev/null; done
dd if=/dev/urandom of=/data/large bs=1M count=32 2>/dev/null
cd /data && sha256sum $(ls | grep -v sums) >/sums && mv /sums /data/sums
echo "GUEST wrote $(wc -l </data/sums) files"
sync
mount -o remount,ro /
reboot -f
INIT
  chmod 755 /mnt/sbin/init
fi
mount --move /dev /mnt/dev
touch /enter-root
`;

t.test("root file system on the volume: write, reboot, read back", requires(GUEST_NEEDS), async (t) => {
  const { uri } = await serveVolume(t, "2G");
  const guest = await Guest.boot({ job: JOB, disk: uri });
  t.teardown(async () => guest.dispose());
  const result = await guest.ended();
  if (result.code !== 0) t.comment(result.console);
  t.match(result.console, /^GUEST wrote 41 files$/m);
  t.equal(result.console.match(/^GUEST root is \/dev\/vda$/gm)?.length, 2, "it ran from the volume twice");
  t.equal(result.code, 0, "the job ended well");
  t.same(result.kernelComplaints, []);
});
