/** The benchmark's own client asks for what its figures say: the server has counted the same requests and bytes. */
import t from "tap";
import type { LoadResult } from "../../scripts/benchmark/load/main.js";
import { metrics } from "./support/metrics.js";
import { check } from "./support/process.js";
import { LaminaServer } from "./support/server.js";

const LOAD = new URL("../../dist/scripts/benchmark/load/main.js", import.meta.url).pathname;
const SIZE = 8 << 20;

async function load(uri: string, ...shape: readonly string[]): Promise<LoadResult> {
  const common = [`--uri=${uri}`, "--seconds=0.3", `--size-bytes=${SIZE}`];
  return JSON.parse(await check(process.execPath, [LOAD, ...common, ...shape])) as LoadResult;
}

t.test("requests, bytes and flushes are the server's", async (t) => {
  const server = new LaminaServer({ capacity: "1G" });
  t.teardown(async () => server.dispose());
  await server.start();
  await server.createVolume("v", "8M");
  const counted = async (metric: string, type: string): Promise<number> =>
    Number(
      new RegExp(`^lamina_${metric}\\{type="${type}"\\} (\\S+)$`, "m").exec(await metrics(server.data))?.[1],
    );

  const writes = await load(
    server.uri("v"),
    ...["--random", "--read-percent=0", "--depth=8", "--connections=2", "--flush-every=4"],
  );
  t.ok(writes.requests > 0, `${writes.requests} writes`);
  t.equal(await counted("requests_total", "write"), writes.requests);
  t.equal(await counted("request_bytes_total", "write"), writes.bytes);
  const flushes = await counted("requests_total", "flush");
  t.ok(Math.abs(flushes - writes.requests / 4) <= 2 * 8, `${flushes} flushes`);

  const reads = await load(server.uri("v"), "--block-bytes=131072", "--depth=4");
  t.equal(reads.bytes, reads.requests * 131072);
  t.equal(await counted("requests_total", "read"), reads.requests);
  t.ok(reads.p50Us > 0 && reads.p50Us <= reads.p99Us && reads.p99Us <= reads.p999Us, "percentiles rise");
});

t.test("a refused request is an error, not a figure", async (t) => {
  const server = new LaminaServer({ capacity: "1G" });
  t.teardown(async () => server.dispose());
  await server.start();
  await server.createVolume("v", "4M");
  await t.rejects(load(server.uri("v"), "--random"), /a request failed with error 22/);
  await t.rejects(load(server.uri("w")), /w/);
});
