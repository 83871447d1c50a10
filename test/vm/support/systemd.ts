/**
 * A guest that boots with systemd and udev instead of a shell. Debian's packages are fetched and unpacked beside
 * the guest's image, never installed; their libraries are this machine's.
 */
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { check, run } from "../../interop/support/process.js";

const ROOT = new URL("../../../", import.meta.url).pathname.replace(/dist\/$/, "");
const PARTS = join(process.env["LAMINA_CACHE"] ?? join(ROOT, ".cache"), "vm", "systemd");
const PACKAGES = ["systemd", "udev", "mount", "util-linux", "kmod"];

/** Programs of the packages that the guest has. */
const PROGRAMS = [
  "lib/systemd/systemd",
  "lib/systemd/systemd-shutdown",
  "lib/systemd/systemd-fsck",
  "lib/systemd/system-generators/systemd-fstab-generator",
  "bin/systemctl",
  "bin/udevadm",
  "bin/mount",
  "bin/umount",
  "sbin/fsck",
  "bin/kmod",
];

const UNITS = [
  "sysinit.target",
  "basic.target",
  "multi-user.target",
  "local-fs-pre.target",
  "local-fs.target",
  "remote-fs-pre.target",
  "remote-fs.target",
  "network-pre.target",
  "network.target",
  "network-online.target",
  "sockets.target",
  "timers.target",
  "paths.target",
  "slices.target",
  "swap.target",
  "shutdown.target",
  "umount.target",
  "final.target",
  "poweroff.target",
  "systemd-poweroff.service",
  "modprobe@.service",
  "systemd-udevd.service",
  "systemd-udevd-control.socket",
  "systemd-udevd-kernel.socket",
  "systemd-fsck@.service",
];

async function fetchPackages(): Promise<string | null> {
  if (existsSync(PARTS)) return null;
  const work = `${PARTS}.new`;
  rmSync(work, { recursive: true, force: true });
  mkdirSync(join(work, "root"), { recursive: true });
  const fetched = await run("apt-get", ["download", "-q", ...PACKAGES], { cwd: work });
  if (fetched.code !== 0) return "the packages systemd and udev cannot be fetched with apt-get download";
  for (const file of readdirSync(work)) {
    if (file.endsWith(".deb")) await check("dpkg-deb", ["-x", join(work, file), join(work, "root")]);
  }
  renameSync(work, PARTS);
  return null;
}

/** In the packages paths begin with /lib or /usr/lib; in the guest everything is below /usr. */
function find(path: string): string | null {
  for (const prefix of ["", "usr"]) {
    const file = join(PARTS, "root", prefix, path);
    if (existsSync(file)) return file;
  }
  return null;
}

async function librariesOf(file: string): Promise<readonly string[] | null> {
  const own = [find("lib/x86_64-linux-gnu/systemd"), find("lib/systemd"), find("lib/x86_64-linux-gnu")];
  const env = { LD_LIBRARY_PATH: own.filter((path) => path !== null).join(":") };
  const { code, stdout } = await run("ldd", [file], { env });
  if (code !== 0 || stdout.includes("not found")) return null;
  return stdout.match(/\/\S+/g) ?? [];
}

/** `files` of a guest, or the reason why they cannot be had. */
export async function systemdFiles(): Promise<Record<string, string> | string> {
  const missing = await fetchPackages();
  if (missing !== null) return missing;
  const files: Record<string, string> = {};
  for (const program of PROGRAMS) {
    const path = find(program);
    if (path === null) return `${program} is not in Debian's packages any more`;
    const libraries = await librariesOf(path);
    if (libraries === null) return `libraries of ${program} are not installed on this machine`;
    files[`usr/${program}`] = path;
    for (const library of libraries) {
      const place = library.startsWith(PARTS) ? library.slice(join(PARTS, "root").length) : library;
      files[`usr/${place.replace(/^\/+(usr\/)?/, "")}`] = library;
    }
  }
  const folder = find("lib/systemd/system");
  for (const unit of UNITS) {
    if (folder !== null && existsSync(join(folder, unit))) {
      files[`usr/lib/systemd/system/${unit}`] = join(folder, unit);
    }
  }
  const rules = find("lib/udev/rules.d");
  for (const rule of ["50-udev-default.rules", "60-block.rules", "99-systemd.rules"]) {
    if (rules !== null) files[`usr/lib/udev/rules.d/${rule}`] = join(rules, rule);
  }
  return files;
}

/** For a guest's job: a root in memory with systemd as its init, for `verdict` to enter. */
export const PREPARE_ROOT = `
mount -t tmpfs none /mnt
cp -a /usr /bin /sbin /lib /lib64 /etc /mnt/
mkdir -p /mnt/proc /mnt/sys /mnt/dev /mnt/run /mnt/tmp /mnt/mnt /mnt/opt /mnt/root /mnt/var/lib
ln -sf ../lib/systemd/systemd /mnt/usr/sbin/init
ln -sf ../../bin/udevadm /mnt/usr/lib/systemd/systemd-udevd
ln -sf kmod /mnt/usr/bin/modprobe
ln -sf ../bin/kmod /mnt/usr/sbin/modprobe
rm -f /mnt/etc/mtab
ln -s ../proc/self/mounts /mnt/etc/mtab
echo 0123456789abcdef0123456789abcdef >/mnt/etc/machine-id
echo 'ID=guest' >/mnt/etc/os-release
echo 'root:x:0:0::/root:/bin/sh' >/mnt/etc/passwd
printf 'root:x:0:\\ndisk:x:6:\\ntty:x:5:\\nkmem:x:15:\\ninput:x:101:\\nvideo:x:44:\\naudio:x:29:\\nrender:x:102:\\nkvm:x:103:\\nsgx:x:104:\\nlp:x:7:\\ncdrom:x:24:\\ntape:x:26:\\ndialout:x:20:\\n' >/mnt/etc/group
mkdir -p /mnt/etc/systemd/system/multi-user.target.wants /mnt/etc/systemd/system/sysinit.target.wants
cat >/mnt/etc/systemd/system.conf <<'END'
[Manager]
LogTarget=console
DefaultStandardOutput=tty
DefaultStandardError=tty
ShowStatus=yes
END
ln -s /usr/lib/systemd/system/multi-user.target /mnt/etc/systemd/system/default.target
for unit in systemd-udevd.service systemd-udevd-control.socket systemd-udevd-kernel.socket; do
  ln -s /usr/lib/systemd/system/$unit /mnt/etc/systemd/system/sysinit.target.wants/$unit
done
`;

/** The end of such a job: the root is entered, and once `after` is reached `script` has the last word. */
export function verdict(after: string, script: string): string {
  return `
cat >/mnt/etc/systemd/system/verdict.service <<'END'
[Unit]
After=${after}
[Service]
Type=oneshot
ExecStart=/bin/sh -e -x /etc/verdict
ExecStopPost=/bin/sh -c 'systemctl --no-block poweroff'
END
ln -s ../verdict.service /mnt/etc/systemd/system/multi-user.target.wants/verdict.service
cat >/mnt/etc/verdict <<'END'
${script}
END
mount --move /dev /mnt/dev
touch /enter-root
`;
}
