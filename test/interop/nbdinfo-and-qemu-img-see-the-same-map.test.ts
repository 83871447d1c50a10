import t from "tap";
import { nbdinfoMap, qemuMap } from "./support/map.js";
import { check } from "./support/process.js";
import { requires } from "./support/requirements.js";
import { bytesOf, SERVER_KIND } from "./support/server.js";
import { serveVolume, VOLUME } from "./support/volume.js";

interface NbdinfoExport {
  readonly "export-name": string;
  readonly "export-size": number;
  readonly [flag: string]: unknown;
}

t.test("nbdinfo describes a volume", requires({ commands: ["nbdinfo"] }), async (t) => {
  const { uri } = await serveVolume(t, "1G");
  const info = JSON.parse(await check("nbdinfo", ["--json", uri])) as {
    readonly protocol: string;
    readonly structured: boolean;
    readonly exports: readonly NbdinfoExport[];
  };
  const [described] = info.exports;
  t.equal(info.protocol, "newstyle-fixed");
  t.equal(info.structured, true);
  t.equal(described?.["export-name"], VOLUME);
  t.equal(described?.["export-size"], bytesOf("1G"));
  t.match(described?.["contexts"], ["base:allocation"]);
  for (const flag of ["can_flush", "can_fua", "can_trim", "can_zero", "can_cache", "can_multi_conn"]) {
    t.equal(described?.[flag], true, flag);
  }
  t.equal(described?.["is_read_only"], false);
  if (SERVER_KIND === "lamina") {
    t.equal(described?.["can_fast_zero"], true, "can_fast_zero");
    t.equal(described?.["block_size_preferred"] !== undefined, true, "block sizes are told");
  }
});

t.test("a fresh volume is one hole", requires({ commands: ["nbdinfo", "qemu-img"] }), async (t) => {
  const { uri } = await serveVolume(t, "1G");
  const whole = [{ offset: 0, length: bytesOf("1G"), hole: true }];
  t.same(await nbdinfoMap(uri), whole);
  t.same(await qemuMap(uri), whole);
});

t.test(
  "both clients see the same map",
  requires({ commands: ["nbdinfo", "qemu-img", "qemu-io"] }),
  async (t) => {
    const { uri } = await serveVolume(t, "64M");
    // Runs across extent borders, single blocks, a hole punched into data, and data at the very end.
    const commands = [
      "write 0 4k",
      "write 12k 8k",
      "write 3M 2M",
      "write 16M 16M",
      "discard 20M 4M",
      "write 65532k 4k",
    ];
    await check("qemu-io", [
      "-f",
      "raw",
      "-d",
      "unmap",
      ...commands.flatMap((command) => ["-c", command]),
      uri,
    ]);
    const expected = [
      { offset: 0, length: 4, hole: false },
      { offset: 4, length: 8, hole: true },
      { offset: 12, length: 8, hole: false },
      { offset: 20, length: 3052, hole: true },
      { offset: 3072, length: 2048, hole: false },
      { offset: 5120, length: 11264, hole: true },
      { offset: 16384, length: 4096, hole: false },
      { offset: 20480, length: 4096, hole: true },
      { offset: 24576, length: 8192, hole: false },
      { offset: 32768, length: 32764, hole: true },
      { offset: 65532, length: 4, hole: false },
    ].map((run) => ({ ...run, offset: run.offset * 1024, length: run.length * 1024 }));
    t.same(await nbdinfoMap(uri), expected, "nbdinfo --map");
    t.same(await qemuMap(uri), expected, "qemu-img map");
  },
);
