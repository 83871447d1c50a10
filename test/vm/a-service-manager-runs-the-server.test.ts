/**
 * lamina.service as it is shipped, under a real systemd: started by the first client of a socket unit, ready when it
 * says so, in its sandbox, reloaded, replaced by another process under a device that is being written, and stopped in
 * order.
 */
import { cpSync, mkdirSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import t, { type Test } from "tap";
import { check } from "../interop/support/process.js";
import { requires } from "../interop/support/requirements.js";
import { removeScratch, scratchDirectory } from "../interop/support/scratch.js";
import { ATTACH_NEEDS, attachProgram, keepConsole, withLibraries } from "./support/attach.js";
import { Guest } from "./support/guest.js";
import { PREPARE_ROOT, systemdFiles, verdict } from "./support/systemd.js";

const ROOT = new URL("../../", import.meta.url).pathname.replace(/dist\/$/, "");

const NEEDS = requires({ ...ATTACH_NEEDS, commands: [...(ATTACH_NEEDS.commands ?? []), "mkfs.ext4", "npm"] });

/** What `lamina.service` of an installed Lamina needs, and Node itself, as a disk of the guest. */
async function programDisk(t: Test, node: string): Promise<string> {
  const folder = scratchDirectory();
  t.teardown(() => removeScratch(folder));
  const tree = join(folder, "lamina");
  mkdirSync(tree);
  const needed = (await check("npm", ["ls", "--omit=dev", "--all", "--parseable"], { cwd: ROOT })).split(
    "\n",
  );
  const packages = needed.filter((path) => path.includes("/node_modules/"));
  const parts = [
    "bin",
    "package.json",
    "dist/lib",
    "addon/build/Release",
    "lib/nbd/package.json",
    "lib/nbd/dist",
  ];
  for (const path of [...parts, ...packages.map((path) => path.slice(ROOT.length))]) {
    if (path === "node_modules/nbd-protocol-ts") continue;
    cpSync(join(ROOT, path), join(tree, path), { recursive: true });
  }
  symlinkSync("../lib/nbd", join(tree, "node_modules/nbd-protocol-ts"));
  cpSync(node, join(tree, "node"), { dereference: true });
  const disk = join(folder, "disk");
  await check("mkfs.ext4", ["-q", "-d", tree, disk, "256M"]);
  return disk;
}

const JOB = `${PREPARE_ROOT}
mount -t ext4 /dev/vda /mnt/opt
cat >/mnt/usr/bin/node <<'END'
#!/bin/sh
# Emulation translates machine code, and is slowest where that is made and changed as it runs.
exec /opt/node --no-opt --no-sparkplug --regexp-interpret-all "$@"
END
chmod 755 /mnt/usr/bin/node
mkdir -p /mnt/usr/local/bin /mnt/etc/lamina /mnt/etc/systemd/system/sockets.target.wants
ln -s /opt/bin/lamina /mnt/usr/local/bin/lamina
echo 'lamina:x:990:990::/var/lib/lamina:/bin/false' >>/mnt/etc/passwd
echo 'lamina:x:990:' >>/mnt/etc/group
cat >/mnt/etc/lamina/serve.json <<'END'
{ "data": "/var/lib/lamina", "capacity": "256M", "pool": "32M", "redis": "none" }
END
cat >/mnt/etc/systemd/system/lamina.socket <<'END'
[Socket]
ListenStream=127.0.0.1:10809
END
mkdir -p /mnt/etc/systemd/system/lamina.service.d
cat >/mnt/etc/systemd/system/lamina.service.d/emulation.conf <<'END'
[Service]
# A server that fails is started again, for ever: the guest ends with its first failure instead.
ExecStopPost=+/bin/sh /etc/lamina/stopped
END
cat >/mnt/etc/lamina/stopped <<'END'
[ $SERVICE_RESULT = success ] && exit
echo "GUEST BAD lamina.service ended: $SERVICE_RESULT, $EXIT_CODE $EXIT_STATUS" >/dev/console
systemctl --no-block poweroff
END
ln -s ../lamina.socket /mnt/etc/systemd/system/sockets.target.wants/lamina.socket
`;

const VERDICT = `
ask() {
  header="Authorization: Bearer $(cat /var/lib/lamina/admin.token)"
  path=$1; shift
  wget -q -O - --header "$header" --header "Content-Type: application/json" "$@" http://127.0.0.1:10810$path
}
fact() { systemctl show --value -p $1 lamina.service; }
# Emulated, one more process is a dear thing: what is waited for is asked of the shell itself.
gone() { while [ -e /proc/$1 ]; do sleep 1; done; }

[ $(fact ActiveState) = inactive ]
nbd-client -l 127.0.0.1
[ $(fact ActiveState) = active ]
echo "GUEST the first client starts it"

first=$(fact MainPID)
grep -E '^(Uid|CapEff|NoNewPrivs|Seccomp):' /proc/$first/status
grep -q '^Uid:.990' /proc/$first/status
grep -q '^CapEff:.0000000000000000$' /proc/$first/status
grep -q '^Seccomp:.2$' /proc/$first/status
[ $(stat -c %a /var/lib/lamina) = 700 ]
ask /v1/volumes --post-data '{"name":"v","size":67108864}'
ask /v1/status
ask /v1/status | grep -qE '"engine": *"ring"'
echo "GUEST it runs in its sandbox, on io_uring"

lamina-attach monitor & monitor=$!
device=$(lamina-attach attach nbd://127.0.0.1/v)
dd if=/dev/urandom of=/tmp/image bs=64k count=4
(while [ ! -e /tmp/enough ]; do dd if=/tmp/image of=$device bs=64k conv=fsync 2>/dev/null || exit 1; sleep 1; done) & writer=$!
systemctl reload lamina.service
[ $(fact MainPID) = $first ]
systemctl kill --kill-whom=main --signal=USR2 lamina.service
gone $first
touch /tmp/enough
wait $writer
[ $(fact MainPID) != 0 ]
[ $(fact ActiveState) = active ]
[ $(fact NRestarts) = 0 ]
echo 3 >/proc/sys/vm/drop_caches
cmp -n 262144 /tmp/image $device
echo "GUEST another process has taken over"

lamina-attach detach $device
kill $monitor
systemctl stop lamina.socket lamina.service
[ $(fact Result) = success ]
[ $(fact ExecMainStatus) = 0 ]
dmesg | grep 'I/O error' | sed 's/^/GUEST BAD /'
echo "GUEST EXIT 0"
`;

const SAID = [
  "the first client starts it",
  "it runs in its sandbox, on io_uring",
  "another process has taken over",
];

t.test("lamina.service", NEEDS, async (t) => {
  const parts = await systemdFiles();
  if (typeof parts === "string") {
    t.comment(`skipped: ${parts}`);
    t.pass(parts, { skip: parts });
    return;
  }
  const { "usr/sbin/node": node, ...libraries } = await withLibraries("node");
  const guest = await Guest.boot({
    job: JOB + verdict("sockets.target", VERDICT),
    disk: await programDisk(t, node!),
    qemu: ["-smp", "2"],
    files: {
      ...parts,
      ...libraries,
      "usr/sbin/lamina-attach": attachProgram(),
      "usr/local/lib/systemd/system/lamina.service": join(ROOT, "scripts/systemd/lamina.service"),
    },
  });
  t.teardown(async () => guest.dispose());
  keepConsole(guest);
  const { code, console } = await guest.ended();
  if (code !== 0) t.comment(console);
  t.same(console.match(/^GUEST BAD .*$/gm) ?? [], [], "no I/O error, and the service does not fail");
  t.equal(code, 0);
  for (const said of SAID) t.ok(console.includes(`GUEST ${said}`), said);
});
