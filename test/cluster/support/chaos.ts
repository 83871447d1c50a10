/**
 * Rounds of: a verified load through one gateway, a fault somewhere in the cluster, then everything that was
 * acknowledged is read back. At the end the cluster must be whole by itself, and its copies equal.
 */
import { pause } from "../../interop/support/server.js";
import { until } from "../../interop/support/until.js";
import type { Cluster, Station } from "./cluster.js";
import { contentOf, differences } from "./copies.js";
import { History } from "./history.js";
import { Load, type LoadShape, verify } from "./load.js";
import type { SeededRandom } from "./random.js";
import { LOAD_MS, type Scene, type Span, type Stage } from "./scenes/scene.js";
import { SECTOR_BYTES } from "./sector-codec.js";

const SHAPE: LoadShape = { connections: 2, depth: 8, hotSectors: 512 };
/** Far longer than any request waits once nothing is wrong any more: one that waits for longer hangs. */
const PATIENCE_MS = 240_000;

export interface ChaosReport {
  readonly scenes: string[];
  acknowledgedWrites: number;
  unfinishedRequests: number;
  checkedSectors: number;
  /** What was wrong, in words; empty when nothing was. */
  readonly problems: string[];
}

export interface ChaosOptions {
  readonly cluster: Cluster;
  readonly volume: string;
  readonly sizeBytes: number;
  readonly random: SeededRandom;
  readonly awayMsMax: number;
}

export class Chaos implements Stage {
  readonly cluster: Cluster;
  readonly volume: string;
  readonly random: SeededRandom;
  readonly awayMsMax: number;
  readonly history: History;
  readonly load: Load;
  readonly report: ChaosReport;
  at: Station;
  readonly #loads: Load[] = [];

  constructor({ cluster, volume, sizeBytes, random, awayMsMax }: ChaosOptions) {
    this.cluster = cluster;
    this.volume = volume;
    this.random = random;
    this.awayMsMax = awayMsMax;
    this.history = new History(sizeBytes / SECTOR_BYTES);
    this.load = this.secondLoad();
    this.at = cluster.gateways[0]!;
    this.report = {
      scenes: [],
      acknowledgedWrites: 0,
      unfinishedRequests: 0,
      checkedSectors: 0,
      problems: [],
    };
  }

  /** One round. Afterwards every process runs, and nothing is under way. Whatever is thrown on the way is a problem. */
  async round(scene: Scene): Promise<void> {
    this.report.scenes.push(scene.name);
    try {
      await this.#inTime(`the scene "${scene.name}"`, this.#play(scene));
    } catch (error) {
      this.problem(`${scene.name}: ${String(error)}`);
    }
    this.#tally();
  }

  async #play(scene: Scene): Promise<void> {
    await this.startLoad();
    await this.during(LOAD_MS);
    await scene.play(this);
    this.history.settleUnfinished();
    await this.#verify("touched");
  }

  // ---- Stage -------------------------------------------------------------------------------------------

  moveOn(probability: number): void {
    const others = this.cluster.gateways.filter((one) => one !== this.at);
    if (others.length > 0 && this.random.chance(probability)) this.at = this.random.pick(others);
  }

  async during({ least, most }: Span): Promise<void> {
    await pause(this.random.between(least, most));
  }

  startLoad(): Promise<void> {
    return this.startLoadOf(this.load, this.at);
  }

  secondLoad(): Load {
    const load = new Load(this.history, this.random, SHAPE);
    this.#loads.push(load);
    return load;
  }

  /** A gateway from which the volume was taken refuses it for a while. */
  async startLoadOf(load: Load, at: Station): Promise<void> {
    await this.#retried(at, () => load.start(at, this.volume));
  }

  stopLoad(): Promise<void> {
    return this.load.stop();
  }

  await(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
    return until(what, holds);
  }

  problem(text: string): void {
    this.report.problems.push(text);
  }

  // ---- Checks ------------------------------------------------------------------------------------------

  async #verify(scope: "touched" | "all"): Promise<void> {
    await this.#retried(this.at, () => verify(this.at, this.volume, this.history, scope));
  }

  async #retried(at: Station, work: () => Promise<void>): Promise<void> {
    let last = "";
    await until(`served by the gateway in ${at.data}`, async () => {
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

  /** What takes longer than anything may is a request that is never answered. */
  async #inTime(what: string, work: Promise<void>): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        this.#describe().then(
          (status) => reject(new Error(`${what} does not end:\n${status}`)),
          (error: unknown) =>
            reject(new Error(`${what} does not end, nor does its description: ${String(error)}`)),
        );
      }, PATIENCE_MS);
    });
    await Promise.race([work, late]).finally(() => clearTimeout(timer));
  }

  async #describe(): Promise<string> {
    const { nodes, gateways } = this.cluster;
    const texts = await Promise.all(
      [...gateways, ...nodes].map(async ({ data }) => `${data}\n${await this.cluster.statusOf(data)}`),
    );
    return texts.join("\n");
  }

  #tally(): void {
    const { report } = this;
    const sum = (of: (counts: Load["counts"]) => number): number =>
      this.#loads.reduce((total, { counts }) => total + of(counts), 0);
    report.acknowledgedWrites = sum(({ writes, zeroes }) => writes + zeroes);
    report.unfinishedRequests = sum(({ unfinished }) => unfinished);
    report.checkedSectors = this.history.checkedSectors;
    report.problems.push(...this.history.violations.splice(0));
    for (const { errors } of this.#loads) report.problems.push(...errors.splice(0));
  }

  /** Without faults the cluster becomes whole; then it ends, and its copies are compared. */
  async finish(): Promise<void> {
    try {
      await this.#inTime("coming to rest", this.#rest());
      this.#tally();
      this.report.problems.push(...(await this.cluster.end()));
      if (this.report.problems.length === 0) await this.#compare();
    } catch (error) {
      this.problem(`at the end: ${String(error)}`);
    }
  }

  async #rest(): Promise<void> {
    await this.startLoad();
    await until("every copy is in sync again", async () => {
      const { volumes } = await this.cluster.status();
      return volumes.every(({ members }) => members.every(({ state }) => state === "insync"));
    });
    await this.load.stop();
    await this.#verify("all");
  }

  async #compare(): Promise<void> {
    for (const node of this.cluster.nodes) {
      const { code, stdout, stderr } = await this.cluster.fsck(node);
      if (code !== 0) this.problem(`fsck of ${node.data} ended with ${code}:\n${stdout}\n${stderr}`);
    }
    const copies = [];
    for (const { data } of this.cluster.nodes) copies.push(await contentOf(data));
    this.report.problems.push(...differences(copies));
    if ((copies[0]?.size ?? 0) === 0) this.problem("the nodes hold nothing");
  }
}
