import t from "tap";
import { dataBytes, qemuMap } from "./support/map.js";
import { check, run } from "./support/process.js";
import { requires } from "./support/requirements.js";
import { SERVER_KIND } from "./support/server.js";
import { serveVolume } from "./support/volume.js";

/** qemu-io reports a failed pattern check and a failed command on standard output, with exit code 1. */
async function qemuIo(uri: string, ...commands: string[]): Promise<string> {
  return check("qemu-io", [
    "-f",
    "raw",
    "-d",
    "unmap",
    ...commands.flatMap((command) => ["-c", command]),
    uri,
  ]);
}

const needs = requires({ commands: ["qemu-io", "qemu-img"] });

t.test("plain, forced, zeroing, unmapping and asynchronous writes read back", needs, async (t) => {
  const { uri } = await serveVolume(t, "64M");
  const out = await qemuIo(
    uri,
    "write -P 0x11 0 1M",
    "write -f -P 0x22 1M 1M",
    "write -z 256k 64k",
    "write -z -f 384k 64k",
    "write -z -u 512k 64k",
    "write -z -u -f 640k 64k",
    "aio_write -P 0x33 8M 4M",
    "aio_write -f -P 0x44 12M 64k",
    "aio_write -z -u 13M 64k",
    "aio_flush",
    "flush",
    "discard 1536k 256k",
    "read -P 0x11 0 256k",
    "read -P 0 256k 64k",
    "read -P 0x11 320k 64k",
    "read -P 0 384k 64k",
    "read -P 0 512k 64k",
    "read -P 0 640k 64k",
    "read -P 0x11 704k 320k",
    "read -P 0x22 1M 512k",
    "read -P 0 1536k 256k",
    "read -P 0x22 1792k 256k",
    "read -P 0x33 8M 4M",
    "read -P 0x44 12M 64k",
    "read -P 0 13M 64k",
  );
  t.notMatch(out, /failed|error/i);
});

t.test("writes that begin and end inside a block keep their neighbours", needs, async (t) => {
  const { uri } = await serveVolume(t, "64M");
  const out = await qemuIo(
    uri,
    "write -P 0x55 0 64k",
    "write -P 0x66 512 512",
    "write -P 0x77 4000 200",
    "write -f -P 0x88 9000 20000",
    "write -z 40000 1000",
    "read -P 0x55 0 512",
    "read -P 0x66 512 512",
    "read -P 0x55 1024 2976",
    "read -P 0x77 4000 200",
    "read -P 0x55 4200 4800",
    "read -P 0x88 9000 20000",
    "read -P 0x55 29000 11000",
    "read -P 0 40000 1000",
    "read -P 0x55 41000 24536",
  );
  t.notMatch(out, /failed|error/i);
});

t.test("zeroing with unmap gives blocks back, without it they stay", needs, async (t) => {
  const { uri } = await serveVolume(t, "64M");
  await qemuIo(uri, "write -P 1 0 16M", "write -z -u 0 4M", "write -z 4M 4M");
  const runs = await qemuMap(uri);
  t.equal(runs[0]?.hole, true, "unmapped");
  // nbdkit's file plugin punches both.
  if (SERVER_KIND !== "lamina") return;
  t.equal(runs[0]?.length, 4 << 20, "only what was unmapped");
  t.equal(dataBytes(runs), 12 << 20, "zeros without unmap are data");
});

t.test("a fast zero is done at once or refused, never slow", needs, async (t) => {
  const { uri } = await serveVolume(t, "64M");
  await qemuIo(uri, "write -P 1 0 8M");
  const result = await run("qemu-io", [
    "-f",
    "raw",
    "-c",
    "write -z -n 0 4M",
    "-c",
    "write -z -u -n 4M 4M",
    uri,
  ]);
  t.match(result.stdout + result.stderr, result.code === 0 ? /wrote 4194304/ : /not supported/i);
  // Refused means unchanged.
  const [first, second] = result.stdout
    .trim()
    .split("\n")
    .filter((line) => /wrote|failed/.test(line));
  await qemuIo(uri, `read -P ${first?.includes("wrote") ? 0 : 1} 0 4M`);
  await qemuIo(uri, `read -P ${second?.includes("wrote") ? 0 : 1} 4M 4M`);
});
