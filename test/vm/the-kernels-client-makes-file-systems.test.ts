import t from "tap";
import { requires } from "../interop/support/requirements.js";
import { serveVolume, VOLUME } from "../interop/support/volume.js";
import { GUEST_NEEDS, Guest } from "./support/guest.js";

// Debian's 6.1 kernel has no WRITE_ZEROES for nbd: mkfs writes real zeros, so the volume is small.
const SIZE = "2G";
const CONNECTIONS = 4;

/** mkfs, files, a second mount that reads them back past the guest's cache, discard, fsck. */
function job(host: string, port: number): string {
  return `
nbd-client -b 4096 -C ${CONNECTIONS} -N ${VOLUME} ${host} ${port} /dev/nbd0
for fs in ext4 xfs; do
  case $fs in
    ext4) mkfs.ext4 -q -F /dev/nbd0 ;;
    xfs) mkfs.xfs -q -f /dev/nbd0 ;;
  esac
  mount -t $fs /dev/nbd0 /mnt
  mkdir /mnt/tree
  for i in $(seq 1 60); do dd if=/dev/urandom of=/mnt/tree/$i bs=1021 count=$i 2>/dev/null; done
  dd if=/dev/urandom of=/mnt/large bs=1M count=24 conv=fsync 2>/dev/null
  (cd /mnt && find . -type f | sort | xargs sha256sum) >/tmp/sums
  sync
  umount /mnt
  echo 3 >/proc/sys/vm/drop_caches
  mount -t $fs /dev/nbd0 /mnt
  (cd /mnt && sha256sum -c /tmp/sums >/tmp/checked)
  [ "$(grep -c OK /tmp/checked)" = 61 ]
  rm /mnt/large
  sync
  fstrim /mnt
  umount /mnt
  case $fs in
    ext4) e2fsck -fn /dev/nbd0 ;;
    xfs) xfs_repair -n /dev/nbd0 >/tmp/repair 2>&1 || { cat /tmp/repair; false; } ;;
  esac
  echo "GUEST $fs is clean"
done
nbd-client -d /dev/nbd0
`;
}

t.test("nbd-client -b 4096 -C 4: ext4 and xfs", requires(GUEST_NEEDS), async (t) => {
  const { server } = await serveVolume(t, SIZE);
  const guest = await Guest.boot({ job: job("10.0.2.2", server.port) });
  t.teardown(async () => guest.dispose());
  const result = await guest.ended();
  if (result.code !== 0) t.comment(result.console);
  t.equal(result.code, 0, "the job ended well");
  t.match(result.console, /^GUEST ext4 is clean$/m);
  t.match(result.console, /^GUEST xfs is clean$/m);
  t.same(result.kernelComplaints, []);
});
