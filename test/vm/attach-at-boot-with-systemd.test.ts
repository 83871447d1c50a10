/**
 * The recipe of docs/attach.md at work: units, udev rule and fstab line in a guest that boots with systemd. The
 * file system is there after boot, survives a restart of its server, and is clean after shutdown.
 */
import { join } from "node:path";
import t from "tap";
import { check } from "../interop/support/process.js";
import { requires } from "../interop/support/requirements.js";
import { removeScratch, scratchDirectory } from "../interop/support/scratch.js";
import { serveVolume } from "../interop/support/volume.js";
import { ATTACH_NEEDS, attachProgram, keepConsole, NO_REDIS, Telephone } from "./support/attach.js";
import { Guest } from "./support/guest.js";
import { PREPARE_ROOT, systemdFiles, verdict } from "./support/systemd.js";

const PACKAGING = new URL("../../scripts/systemd/", import.meta.url).pathname.replace("/dist/", "/");

/** What is looked at once the guest has booted. */
function verdictOf(telephone: number): string {
  return `
ask() { [ "$(echo $1 | nc 10.0.2.2 ${telephone})" = done ]; }
systemctl is-active lamina-attach-monitor.service lamina-attach@data.service srv-data.mount
ls -l /dev/lamina
grep ' /srv/data ext4 ' /proc/mounts
cat /sys/block/nbd*/queue/scheduler | head -n 1
lamina-attach list
echo before >/srv/data/one; sync
ask kill
(echo meanwhile >/srv/data/two; sync) & writer=$!
sleep 2
systemctl kill -s KILL lamina-attach-monitor.service
ask start
wait $writer
echo after >/srv/data/three; sync
[ "$(cat /srv/data/one /srv/data/two /srv/data/three | tr '\\n' ' ')" = "before meanwhile after " ]
lamina-attach list
dmesg | grep -E 'I/O error|Remounting' | sed 's/^/GUEST BAD /'
echo "GUEST recipe works"
echo "GUEST EXIT 0"
`;
}

/** First the file system is made; then a root in memory is prepared and entered, with systemd as its init. */
function job(port: number, telephone: number): string {
  return `
device=$(lamina-attach attach nbd://10.0.2.2:${port}/v)
mkfs.ext4 -q -F $device
lamina-attach detach $device
rm -rf /run/lamina

${PREPARE_ROOT}
mkdir -p /mnt/srv/data /mnt/etc/lamina/attach /mnt/etc/systemd/system/remote-fs.target.wants
cat >/mnt/etc/lamina/attach/data.conf <<'END'
URI=nbd://10.0.2.2:${port}/v
OPTIONS=--timeout 2
END
cat >/mnt/etc/fstab <<'END'
/dev/lamina/v /srv/data ext4 _netdev,nofail,x-systemd.requires=lamina-attach@data.service,x-systemd.device-timeout=120 0 2
END
ln -s /usr/local/lib/systemd/system/lamina-attach@.service /mnt/etc/systemd/system/remote-fs.target.wants/lamina-attach@data.service
ln -s /usr/lib/systemd/system/remote-fs.target /mnt/etc/systemd/system/multi-user.target.wants/remote-fs.target
${verdict("remote-fs.target srv-data.mount", verdictOf(telephone))}
`;
}

t.test("units, udev rule and fstab", requires(ATTACH_NEEDS), async (t) => {
  const parts = await systemdFiles();
  if (typeof parts === "string") {
    t.comment(`skipped: ${parts}`);
    t.pass(parts, { skip: parts });
    return;
  }
  const { server, uri } = await serveVolume(t, "256M", NO_REDIS);
  const telephone = await Telephone.open(t, {
    kill: async () => {
      await server.kill();
    },
    start: async () => {
      await server.start();
    },
  });
  const guest = await Guest.boot({
    job: job(server.port, telephone.port),
    files: {
      ...parts,
      "usr/local/sbin/lamina-attach": attachProgram(),
      "usr/sbin/lamina-attach": attachProgram(),
      "usr/local/lib/systemd/system/lamina-attach-monitor.service": join(
        PACKAGING,
        "lamina-attach-monitor.service",
      ),
      "usr/local/lib/systemd/system/lamina-attach@.service": join(PACKAGING, "lamina-attach@.service"),
      "etc/udev/rules.d/60-lamina-attach.rules": join(PACKAGING, "60-lamina-attach.rules"),
    },
  });
  t.teardown(async () => guest.dispose());
  keepConsole(guest);
  const result = await guest.ended();
  if (result.code !== 0) t.comment(result.console);
  t.equal(result.code, 0, "booted, mounted, outlived a restart");
  t.match(result.console, /^GUEST recipe works$/m);
  t.notMatch(result.console, /^GUEST BAD/m);

  // Shutdown unmounted it and detached: nothing of the journal is left to replay.
  const folder = scratchDirectory();
  t.teardown(() => removeScratch(folder));
  const image = join(folder, "image");
  await check("nbdcopy", [uri, image]);
  t.notMatch(await check("dumpe2fs", ["-h", image]), /needs_recovery/, "shutdown unmounted it");
  await check("e2fsck", ["-fn", image]);
});
