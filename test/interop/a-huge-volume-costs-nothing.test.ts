import t from "tap";
import { LOOP_NEEDS, LoopDevice } from "./support/loop-device.js";
import { check } from "./support/process.js";
import { requires } from "./support/requirements.js";
import { allocatedBytesBelow } from "./support/server.js";
import { serveVolume } from "./support/volume.js";

const MIB = 1 << 20;
const GIB = 2 ** 30;
const SYSTEM_PYTHON = { PATH: "/usr/bin:/bin:/usr/sbin:/sbin" };

t.test("100 TiB cost under 1 MiB", requires({ lamina: true }), async (t) => {
  const { server } = await serveVolume(t, "16M");
  const before = allocatedBytesBelow(server.data);
  await server.createVolume("huge", "100T");
  const cost = allocatedBytesBelow(server.data) - before;
  t.ok(cost < MIB, `creating it took ${cost} bytes`);
  const info = JSON.parse(await check("nbdinfo", ["--json", "--no-content", server.uri("huge")])) as {
    readonly exports: readonly { readonly "export-size": number }[];
  };
  t.equal(info.exports[0]?.["export-size"], 100 * 2 ** 40);
});

t.test(
  "TRIM and zeroes over all of an empty 16 TiB volume",
  requires({ lamina: true, commands: ["nbdsh"] }),
  async (t) => {
    const { server, uri } = await serveVolume(t, "16T");
    const before = allocatedBytesBelow(server.data);
    const script = `
size = h.get_size()
step = 4 * 2**30 - 4096
for action in (h.trim, h.zero):
    for at in range(0, size, step):
        action(min(step, size - at), at)
h.flush()
print("done")
`;
    t.match(await check("nbdsh", ["-u", uri, "-c", script], { env: SYSTEM_PYTHON }), /done/);
    const cost = allocatedBytesBelow(server.data) - before;
    t.ok(cost < MIB, `it took ${cost} bytes`);
  },
);

t.test(
  "written zeros over nothing stay nothing",
  requires({ lamina: true, commands: ["nbdsh"] }),
  async (t) => {
    const { server, uri } = await serveVolume(t, "1G");
    const before = allocatedBytesBelow(server.data);
    const script = `
zeros = bytearray(4 * 2**20)
for at in range(0, 256 * 2**20, len(zeros)):
    h.pwrite(zeros, at)
h.flush()
assert h.pread(65536, 2**20) == bytearray(65536)
print("done")
`;
    t.match(await check("nbdsh", ["-u", uri, "-c", script], { env: SYSTEM_PYTHON }), /done/);
    // Records of a log ring that exists already take nothing new; slots would take 256 MiB.
    const cost = allocatedBytesBelow(server.data) - before;
    t.ok(cost < 8 * MIB, `256 MiB of zeros took ${cost} bytes`);
  },
);

for (const [name, ...make] of [
  ["mkfs.ext4", "-q", "-F", "-m", "0"],
  ["mkfs.xfs", "-q", "-f"],
] as const) {
  const needs = requires({ ...LOOP_NEEDS, lamina: true, commands: [...LOOP_NEEDS.commands, name] });
  t.test(`${name} of 16 TiB`, needs, async (t) => {
    // ext4's limit is one block below 16 TiB. It puts a few blocks into 8192 groups, each an extent.
    const { server, uri } = await serveVolume(t, `${16 * 2 ** 40 - MIB}`, { capacity: "64G" });
    const disk = await LoopDevice.attach(uri);
    t.teardown(async () => disk.detach());
    await check(name, [...make, disk.device]);
    await disk.mount(name.replace("mkfs.", ""));
    await disk.unmount();
    t.ok(allocatedBytesBelow(server.data) < 4 * GIB, "only what it wrote takes space");
  });
}
