/**
 * Rounds of: a verified load through one gateway, a fault somewhere in the cluster, then everything that was
 * acknowledged is read back. At the end the cluster must be whole by itself, and its copies equal.
 */
import { pause } from "../../interop/support/server.js";
import { until } from "../../interop/support/until.js";
import type { Cluster, Station } from "./cluster.js";
import { contentOf, differences } from "./copies.js";
import { History } from "./history.js";
import { Load, verify } from "./load.js";
import type { SeededRandom } from "./random.js";
import { SECTOR_BYTES } from "./sector-codec.js";

export const FAULTS = [
  "kill a node",
  "stop a node",
  "kill a gateway",
  // Before the one that has a gateway refuse the volume for a while.
  "hand over",
  "stop a gateway",
  "kill all nodes",
] as const;
export type Fault = (typeof FAULTS)[number];

export interface ChaosReport {
  readonly faults: Fault[];
  acknowledgedWrites: number;
  unfinishedRequests: number;
  checkedSectors: number;
  /** What was wrong, in words; empty when nothing was. */
  readonly problems: string[];
}

/** Milliseconds of load before the fault, and of the fault. */
const LOAD_MS = { least: 100, most: 800 };
const KILLED_MS = { least: 50, most: 1800 };
const STOPPED_MS_LEAST = 500;

export class Chaos {
  readonly #cluster: Cluster;
  readonly #volume: string;
  readonly #random: SeededRandom;
  readonly #history: History;
  readonly #load: Load;
  readonly #stoppedMsMax: number;
  readonly report: ChaosReport;
  #at: Station;

  /** `stoppedMsMax`: nodes stand still for so long at most. */
  constructor(
    cluster: Cluster,
    volume: string,
    sizeBytes: number,
    random: SeededRandom,
    stoppedMsMax: number,
  ) {
    this.#stoppedMsMax = stoppedMsMax;
    this.#cluster = cluster;
    this.#volume = volume;
    this.#random = random;
    this.#history = new History(sizeBytes / SECTOR_BYTES);
    this.#load = new Load(this.#history, random, { connections: 2, depth: 8, hotSectors: 512 });
    this.#at = cluster.gateways[0]!;
    this.report = {
      faults: [],
      acknowledgedWrites: 0,
      unfinishedRequests: 0,
      checkedSectors: 0,
      problems: [],
    };
  }

  /** One round. Afterwards every process runs, and nothing is under way. */
  async round(fault: Fault): Promise<void> {
    this.report.faults.push(fault);
    await this.#startLoad();
    await pause(this.#random.between(LOAD_MS.least, LOAD_MS.most));
    await this.#strike(fault);
    this.#history.settleUnfinished();
    await this.#verify();
    this.#tally();
  }

  async #strike(fault: Fault): Promise<void> {
    const node = this.#random.pick(this.#cluster.nodes);
    switch (fault) {
      case "kill a node":
        await node.kill();
        await this.#during(KILLED_MS);
        node.launch();
        await node.ready();
        await this.#load.stop();
        break;
      case "stop a node":
        node.pause();
        await this.#during({ least: STOPPED_MS_LEAST, most: this.#stoppedMsMax });
        node.goOn();
        await this.#load.stop();
        break;
      case "kill all nodes":
        await Promise.all(this.#cluster.nodes.map((one) => one.kill()));
        await this.#during(KILLED_MS);
        for (const one of this.#cluster.nodes) one.launch();
        await Promise.all(this.#cluster.nodes.map((one) => one.ready()));
        await this.#load.stop();
        break;
      case "kill a gateway":
        await this.#at.kill();
        await this.#load.cutOff();
        this.#at.launch();
        await this.#at.ready();
        this.#other(0.5);
        break;
      case "stop a gateway":
        await this.#takeOverFromStopped();
        break;
      case "hand over":
        await this.#load.stop();
        this.#other(1);
        break;
    }
  }

  /** The stopped one goes on while the other serves: what it still had to say must be said to nobody. */
  async #takeOverFromStopped(): Promise<void> {
    const stopped = this.#at;
    stopped.pause();
    await this.#load.abandon();
    this.#history.settleUnfinished();
    this.#other(1);
    await this.#startLoad();
    stopped.goOn();
    await this.#during(LOAD_MS);
    await this.#load.stop();
  }

  #other(probability: number): void {
    const others = this.#cluster.gateways.filter((one) => one !== this.#at);
    if (others.length > 0 && this.#random.chance(probability)) this.#at = this.#random.pick(others);
  }

  async #during({ least, most }: { readonly least: number; readonly most: number }): Promise<void> {
    await pause(this.#random.between(least, most));
  }

  /** A gateway from which the volume was taken refuses it for a while. */
  async #startLoad(): Promise<void> {
    await this.#retried(() => this.#load.start(this.#at, this.#volume));
  }

  async #verify(): Promise<void> {
    await this.#retried(() => verify(this.#at, this.#volume, this.#history, "touched"));
  }

  async #retried(work: () => Promise<void>): Promise<void> {
    let last = "";
    await until(`served by the gateway on port ${this.#at.port}`, async () => {
      try {
        await work();
        return true;
      } catch (error) {
        last = String(error);
        return false;
      }
    }).catch((error: unknown) => {
      throw new Error(`${String(error)}; the last answer was: ${last}`);
    });
  }

  #tally(): void {
    const { counts, errors } = this.#load;
    const { report } = this;
    report.acknowledgedWrites = counts.writes + counts.zeroes;
    report.unfinishedRequests = counts.unfinished;
    report.checkedSectors = this.#history.checkedSectors;
    report.problems.push(...this.#history.violations, ...errors);
  }

  /** Without faults the cluster becomes whole; then it ends, and its copies are compared. */
  async finish(): Promise<void> {
    const { report } = this;
    await this.#startLoad();
    await until("every copy is in sync again", async () => {
      const { volumes } = await this.#cluster.status();
      return volumes.every(({ members }) => members.every(({ state }) => state === "insync"));
    });
    await this.#load.stop();
    await this.#retried(() => verify(this.#at, this.#volume, this.#history, "all"));
    this.#tally();
    report.problems.push(...(await this.#cluster.end()));
    for (const node of this.#cluster.nodes) {
      const { code, stdout, stderr } = await this.#cluster.fsck(node);
      if (code !== 0) report.problems.push(`fsck of ${node.data} ended with ${code}:\n${stdout}\n${stderr}`);
    }
    const copies = [];
    for (const { data } of this.#cluster.nodes) copies.push(await contentOf(data));
    report.problems.push(...differences(copies));
    if ((copies[0]?.size ?? 0) === 0) report.problems.push("the nodes hold nothing");
  }
}
