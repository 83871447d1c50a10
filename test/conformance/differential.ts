/**
 * The same questions to Lamina and to the servers of the field; what differs and is not in deviations.ts is either
 * our mistake or news.
 *
 *     node dist/test/conformance/differential.js      prints every difference (NBD_SERVER names nbd-server's binary)
 */
import { existsSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { type BenchServer, Lamina, Nbdkit, NbdServer, QemuNbd } from "../../scripts/benchmark/servers.js";
import { hasCommand } from "../interop/support/process.js";
import { removeScratch, scratchDirectory } from "../interop/support/scratch.js";
import { DEVIATIONS, type Deviation, type Peer } from "./deviations.js";
import { answerOf, PROBE_BYTES, PROBES } from "./probes.js";
import type { Place } from "./raw-socket.js";

const ROOT = new URL("../../", import.meta.url).pathname.replace(/dist\/$/, "");

export interface Difference {
  readonly probe: string;
  readonly ours: string;
  readonly theirs: string;
  readonly known: Deviation | undefined;
}

/** Peers that are on this machine. nbd-server counts when $NBD_SERVER or PATH has it; ./scripts/test unpacks it. */
export function peers(): Map<Peer, () => BenchServer> {
  const found = new Map<Peer, () => BenchServer>();
  if (hasCommand("nbdkit")) found.set("nbdkit", () => new Nbdkit("file"));
  if (hasCommand("qemu-nbd")) found.set("qemu-nbd", () => new QemuNbd());
  const unpacked = process.env["NBD_SERVER"] ?? `${ROOT}.cache/nbd-server/bin/nbd-server`;
  const binary = existsSync(unpacked) ? unpacked : "nbd-server";
  if (binary === unpacked || hasCommand(binary)) found.set("nbd-server", () => new NbdServer(binary));
  return found;
}

/** `peer`: whose silence is known; null for Lamina, which has none. */
async function askAll(server: BenchServer, peer: Peer | null): Promise<Map<string, string>> {
  const folder = scratchDirectory();
  try {
    await server.start(folder, PROBE_BYTES);
    const { hostname, port } = new URL(server.uri.replace("nbd:", "http:"));
    const place: Place = { kind: "tcp", host: hostname, port: Number(port) };
    const answers = new Map<string, string>();
    for (const probe of PROBES) {
      answers.set(
        probe.name,
        await answerOf(probe, place, knownAs(peer, probe.name, "silence") !== undefined),
      );
    }
    return answers;
  } finally {
    await server.stop();
    await removeScratch(folder);
  }
}

export async function laminaAnswers(): Promise<Map<string, string>> {
  return askAll(new Lamina("lamina", ROOT, ["--redis", "none", "--pool", "64M"]), null);
}

export async function differencesWith(
  peer: Peer,
  make: () => BenchServer,
  ours: ReadonlyMap<string, string>,
): Promise<Difference[]> {
  const differences: Difference[] = [];
  for (const [probe, theirs] of await askAll(make(), peer)) {
    const own = ours.get(probe)!;
    if (own === theirs) continue;
    differences.push({ probe, ours: own, theirs, known: knownAs(peer, probe, theirs) });
  }
  return differences;
}

function knownAs(peer: Peer | null, probe: string, answer: string): Deviation | undefined {
  return DEVIATIONS.find((d) => d.server === peer && d.probe === probe && d.answer === answer);
}

async function main(): Promise<void> {
  const ours = await laminaAnswers();
  let news = 0;
  for (const [peer, make] of peers()) {
    for (const { probe, ours: own, theirs, known } of await differencesWith(peer, make, ours)) {
      if (known === undefined) news++;
      console.log(`${peer}: ${probe}: ${theirs}; Lamina: ${own}; ${known?.why ?? "NOT KNOWN"}`);
    }
  }
  console.log(`${news} differences that are not known`);
  process.exitCode = news === 0 ? 0 : 1;
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) await main();
