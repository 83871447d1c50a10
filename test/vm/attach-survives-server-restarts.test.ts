/**
 * File systems on attached volumes, and on a QEMU disk, under a load that verifies itself, while their server is
 * killed and started again, replaced by another, stopped, cannot be reached, and the monitor itself is killed. A
 * pause is all they may see.
 */
import t from "tap";
import { requires } from "../interop/support/requirements.js";
import { LaminaServer, type TestServer } from "../interop/support/server.js";
import { serveVolume, VOLUME } from "../interop/support/volume.js";
import {
  ATTACH_NEEDS,
  attachProgram,
  keepConsole,
  NO_REDIS,
  shellTools,
  Telephone,
} from "./support/attach.js";
import { Guest } from "./support/guest.js";

// mkfs in Debian's kernel writes real zeros: small volumes.
const SIZE = "512M";
const KILLS = Number(process.env["LAMINA_ATTACH_KILLS"] ?? 20);
const REPLACEMENTS = Number(process.env["LAMINA_ATTACH_REPLACEMENTS"] ?? 20);
const STOPS = 3;
/**
 * As docs/attach.md has it. QEMU pauses 1, 2, 4, 8, 16, 16, … seconds between its attempts, and all that counts is whether
 * one of them finds the server: seven that meet one restart each, on a slow machine, use up a minute.
 */
const RECONNECT_DELAY_S = 86_400;
const QEMU_TRACE = [
  "nbd_co_request_fail",
  "nbd_client_handshake_success",
  "nbd_connect_thread_sleep",
  "nbd_reconnect_attempt_result",
];
const UNREACHABLE_S = Number(process.env["LAMINA_ATTACH_DARK_S"] ?? 60);
/** Requests in flight when a connection dies are repeated after this. */
const TIMEOUT_S = 2;

function job(tools: string, port: number): string {
  return `${tools}
lamina-attach monitor 2>/tmp/monitor-log &
monitor=$!
sleep 1
a=$(lamina-attach attach nbd://10.0.2.2:${port}/${VOLUME} --timeout ${TIMEOUT_S})
b=$(lamina-attach attach nbd://10.0.2.2:${port}/xfs --timeout ${TIMEOUT_S} --device /dev/nbd7)
[ $b = /dev/nbd7 ]
[ "$(lamina-attach attach nbd://10.0.2.2:${port}/${VOLUME})" = $a ]
lamina-attach list
mkfs.ext4 -q -F $a
mkfs.xfs -q -f $b
mkfs.ext4 -q -F /dev/vda
mkdir -p /ext4 /xfs /qemu
mount -t ext4 $a /ext4
mount -t xfs $b /xfs
mount -t ext4 /dev/vda /qemu
if lamina-attach detach $a; then false; fi
(set +x; load /ext4 ext4) & writers=$!
(set +x; load /xfs xfs) & writers="$writers $!"
(set +x; load /qemu qemu) & writers="$writers $!"

for round in $(seq 1 ${KILLS}); do
  usleep $((round % 4 * 150000))
  ask kill
  usleep $((round % 3 * 200000))
  # The monitor has no memory: half of the time it is killed too.
  if [ $((round % 2)) = 0 ]; then
    kill -9 $monitor
    lamina-attach monitor 2>>/tmp/monitor-log &
    monitor=$!
  fi
  ask start
  until_true 300 is_whole $a
  until_true 300 is_whole $b
done
echo "GUEST outlived ${KILLS} restarts"

for round in $(seq 1 ${REPLACEMENTS}); do
  usleep $((round % 4 * 150000))
  ask replace
  until_true 300 is_whole $a
  until_true 300 is_whole $b
done
echo "GUEST outlived ${REPLACEMENTS} replacements"

for round in $(seq 1 ${STOPS}); do
  ask stop
  ask start
  until_true 300 is_whole $a
  until_true 300 is_whole $b
done
echo "GUEST outlived ${STOPS} stops"

ip route add blackhole 10.0.2.2/32
sleep $((${UNREACHABLE_S} - 5))
lamina-attach list --json
lamina-attach list | grep -c "waits for" | sed 's/^/GUEST waiting: /'
sleep 5
ip route del blackhole 10.0.2.2/32
until_true 300 is_whole $a
until_true 300 is_whole $b
echo "GUEST outlived the dark"

sleep 1
touch /stop-ext4 /stop-xfs /stop-qemu
wait $writers
cat /tmp/monitor-log
umount /ext4
umount /xfs
umount /qemu
echo 3 >/proc/sys/vm/drop_caches
e2fsck -fn $a
e2fsck -fn /dev/vda
xfs_repair -n $b >/tmp/repair 2>&1 || { cat /tmp/repair; false; }
echo "GUEST file systems are clean"
mount -t ext4 $a /ext4
mount -t xfs $b /xfs
mount -t ext4 /dev/vda /qemu
verify /ext4 ext4
verify /xfs xfs
verify /qemu qemu
umount /ext4 /xfs /qemu
lamina-attach detach $a
lamina-attach detach nbd://10.0.2.2:${port}/xfs
[ "$(lamina-attach list)" = "" ]
kill $monitor
dmesg | grep -E 'I/O error|Remounting filesystem|XFS.*(error|orrupt|shut)|EXT4-fs error|blocked for more' | sed 's/^/GUEST BAD /'
`;
}

async function replace(server: TestServer): Promise<void> {
  if (server instanceof LaminaServer) {
    await server.replace();
    return;
  }
  await server.stop();
  await server.start();
}

t.test("20 restarts, 20 replacements and a minute of darkness", requires(ATTACH_NEEDS), async (t) => {
  const { server } = await serveVolume(t, SIZE, NO_REDIS);
  await server.createVolume("xfs", SIZE);
  await server.createVolume("qemu", SIZE);
  const telephone = await Telephone.open(t, {
    kill: async () => server.kill(),
    start: async () => server.start(),
    stop: async () => server.stop(),
    replace: async () => replace(server),
  });
  const guest = await Guest.boot({
    job: job(shellTools(telephone), server.port),
    files: { "usr/sbin/lamina-attach": attachProgram() },
    disk: `${server.uri("qemu")},file.reconnect-delay=${RECONNECT_DELAY_S}`,
    // Should the guest see an error on that disk, the console says which requests failed, and of what.
    qemu: [...QEMU_TRACE.flatMap((event) => ["-trace", `enable=${event}`]), "-msg", "timestamp=on"],
  });
  t.teardown(async () => guest.dispose());
  keepConsole(guest);
  const result = await guest.ended();
  if (result.code !== 0) t.comment(result.console);
  t.equal(result.code, 0, "the job ended well");
  t.equal(telephone.heard.filter((word) => word === "kill").length, KILLS, "that many kills");
  t.equal(
    telephone.heard.filter((word) => word === "replace").length,
    REPLACEMENTS,
    "that many replacements",
  );
  t.match(result.console, /^GUEST waiting: 2$/m, "both devices say that they wait");
  t.match(result.console, /^GUEST outlived the dark$/m, "reconnected after it");
  t.match(result.console, /^GUEST file systems are clean$/m, "fsck of all three");
  for (const name of ["ext4", "xfs", "qemu"]) {
    t.match(
      result.console,
      new RegExp(`^GUEST ${name} wrote [1-9][0-9]+ files$`, "m"),
      `${name}: there was a load`,
    );
    t.match(result.console, new RegExp(`^GUEST ${name} is byte-equal$`, "m"), `${name}: all synced files`);
  }
  t.same(result.console.match(/^GUEST BAD .*$/gm), null, "no I/O error in the kernel's log");
});
