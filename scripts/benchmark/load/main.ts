/**
 * A load generator on the ring engine, for servers that are faster than fio's nbd engine: fio fills a core at about
 * 115,000 requests/s, this takes a third of that CPU time. It speaks to any NBD server, over TCP or a unix socket.
 *
 *   main.js --uri URI --random --read-percent N --block-bytes N --depth N --connections N --seconds N
 *           --size-bytes N [--flush-every N]
 *
 * Prints one JSON object, LoadResult.
 */
import { parseArgs } from "node:util";
import { parseNbdUri } from "nbd-protocol-ts";
import { MIB } from "../../../lib/core/limits.js";
import { openEngine } from "../../../lib/uring/engine.js";
import { CONNECTION_POOL_BYTES, LoadConnection } from "./connection.js";
import { Latencies } from "./latencies.js";
import type { Shape } from "./workload.js";

/** Of reads and writes; flushes are not counted. */
export interface LoadResult {
  readonly requests: number;
  readonly bytes: number;
  readonly seconds: number;
  readonly p50Us: number;
  readonly p99Us: number;
  readonly p999Us: number;
}

interface Arguments {
  readonly uri: string;
  readonly connections: number;
  readonly seconds: number;
  readonly shape: Shape;
}

function parse(): Arguments {
  const { values } = parseArgs({
    options: {
      uri: { type: "string", default: "nbd://127.0.0.1" },
      random: { type: "boolean", default: false },
      "read-percent": { type: "string", default: "100" },
      "block-bytes": { type: "string", default: "4096" },
      depth: { type: "string", default: "1" },
      connections: { type: "string", default: "1" },
      seconds: { type: "string", default: "1" },
      "size-bytes": { type: "string", default: String(256 * MIB) },
      "flush-every": { type: "string", default: "0" },
    },
  });
  return {
    uri: values.uri,
    connections: Number(values.connections),
    seconds: Number(values.seconds),
    shape: {
      random: values.random,
      readPercent: Number(values["read-percent"]),
      blockBytes: Number(values["block-bytes"]),
      depth: Number(values.depth),
      flushEvery: Number(values["flush-every"]),
      sizeBytes: Number(values["size-bytes"]),
    },
  };
}

async function load({ uri, connections, seconds, shape }: Arguments): Promise<LoadResult> {
  const { endpoint, exportName, tls } = parseNbdUri(uri);
  if (tls) throw new Error("this load generator does not speak TLS");
  const poolBytes = connections * 2 * CONNECTION_POOL_BYTES + MIB;
  // It sleeps as other clients do: what it spins through would be the server's.
  const engine = openEngine({ kind: "auto", poolBytes, spinMicros: 0 });
  const latencies = new Latencies();
  const clients: LoadConnection[] = [];
  for (let i = 1; i <= connections; i++) {
    const stream = await engine.connect(endpoint);
    const client = new LoadConnection(engine, stream, shape, exportName, latencies, i * 0x9e3779b1);
    await client.ready();
    clients.push(client);
  }
  const begun = performance.now();
  const running = clients.map((client) => client.start());
  setTimeout(() => {
    for (const client of clients) client.stop();
  }, seconds * 1000);
  await Promise.all(running);
  const elapsed = (performance.now() - begun) / 1000;
  for (const client of clients) await client.close();
  await engine.close();
  return {
    requests: latencies.count,
    bytes: clients.reduce((sum, { bytes }) => sum + bytes, 0),
    seconds: elapsed,
    p50Us: latencies.percentileUs(0.5),
    p99Us: latencies.percentileUs(0.99),
    p999Us: latencies.percentileUs(0.999),
  };
}

try {
  console.log(JSON.stringify(await load(parse())));
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  // Open connections would keep the process alive.
  process.exit(1);
}
