/**
 * What operators do with config nodes: give the vote of one that is lost, or is to go, to another node
 * (docs/architecture/replica.md "Changing the config nodes").
 *
 * Invariants
 *  1. A change is told as made when majorities of the old set and of the new one have accepted it.
 *  2. None is begun while the node that joined last has still to copy, unless it is that one that goes.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { LaminaError } from "../core/errors.js";
import type { NodeId } from "../replica/api.js";
import { type ChangeOutcome, ConfigChange } from "../replica/config/change.js";
import { type ConfigSet, isIn, type SetFollower } from "../replica/config/set.js";
import { addressText } from "../uring/address.js";
import { decided } from "./control.js";
import type { NodePlace } from "./dial.js";
import { describe, findNode, type SeatEnvironment } from "./seats.js";

/** How long the answer waits for the copy of the node that joins, and how often it looks. */
const COPY_PATIENCE_MS = 10_000;
const COPY_LOOK_MS = 200;

export interface ConfigOutcome {
  readonly set: ConfigSet;
  /** The node that joined has copied what was decided before, and votes. */
  readonly votes: boolean;
}

export class ConfigControl {
  readonly #environment: SeatEnvironment;
  readonly #follower: SetFollower;

  constructor(environment: SeatEnvironment, follower: SetFollower) {
    this.#environment = environment;
    this.#follower = follower;
  }

  /**
   * `next` votes in the place of `old` from now on. Throws NODE_UNKNOWN, CONFIG_NODE_NOT, CONFIG_NODE_ALREADY,
   * CONFIG_NODE_UNUSABLE, CONFIG_NODE_COPIES, CLUSTER_UNREACHABLE, CLUSTER_UNDECIDED.
   */
  async replace(old: string, next: string): Promise<ConfigOutcome> {
    const { directory } = this.#environment;
    await directory.refresh();
    const leaving = findNode(directory, old);
    const joining = findNode(directory, next);
    const node = addressText(leaving.address);
    if (!this.#isDone(leaving.node, joining.node)) {
      if (!directory.isConfig(leaving.node)) throw new LaminaError("CONFIG_NODE_NOT", { node });
      if (directory.isConfig(joining.node))
        throw new LaminaError("CONFIG_NODE_ALREADY", { node: addressText(joining.address) });
      await this.#refuseUnusable(joining);
      await this.#refuseCopying(leaving.node);
    }
    const set = await this.#change(leaving, joining);
    return { set, votes: await this.#awaitVote(joining, set.version) };
  }

  /** It is what was done last: asked again, it is done. */
  #isDone(leaving: NodeId, joining: NodeId): boolean {
    const { set } = this.#follower;
    const joined = set.nodes.find(({ since }) => since === set.version);
    return joined?.node === joining && set.before.some(({ node }) => node === leaving) && !isIn(set, leaving);
  }

  async #refuseUnusable(place: NodePlace): Promise<void> {
    const { dial, key } = this.#environment;
    const said = await describe(dial, key, place);
    if (said !== null && said.failed === null && said.standing === "registered") return;
    throw new LaminaError("CONFIG_NODE_UNUSABLE", { node: addressText(place.address) });
  }

  /** Else the new set could be one of which too few vote. */
  async #refuseCopying(leaving: NodeId): Promise<void> {
    const { set } = this.#follower;
    const joined = set.nodes.find(({ since }) => since === set.version && since > 1);
    if (joined === undefined || joined.node === leaving) return;
    const place = this.#environment.directory.config.find(({ node }) => node === joined.node)!;
    if (await this.#votes(place, set.version)) return;
    throw new LaminaError("CONFIG_NODE_COPIES", { node: addressText(place.address) });
  }

  async #votes(place: NodePlace, version: number): Promise<boolean> {
    const { dial, key } = this.#environment;
    const said = await describe(dial, key, place);
    return said?.votes === true && (said.set?.version ?? 0) >= version;
  }

  async #change(leaving: NodePlace, joining: NodePlace): Promise<ConfigSet> {
    const { dial, random, register, peer } = this.#environment;
    const environment = { clock: dial.clock, random, register, follower: this.#follower, peer };
    const wanted = {
      old: leaving.node,
      next: { node: joining.node, place: addressText(joining.address) },
    };
    const outcome = await decided<ChangeOutcome>("the config nodes", (done) => {
      return new ConfigChange(environment, wanted, done);
    });
    if (outcome.kind === "changed") return outcome.set;
    // Somebody else has changed them meanwhile.
    const isGone = !isIn(outcome.set, leaving.node);
    const node = addressText((isGone ? leaving : joining).address);
    throw new LaminaError(isGone ? "CONFIG_NODE_NOT" : "CONFIG_NODE_ALREADY", { node });
  }

  async #awaitVote(joining: NodePlace, version: number): Promise<boolean> {
    for (let waited = 0; waited < COPY_PATIENCE_MS; waited += COPY_LOOK_MS) {
      if (await this.#votes(joining, version)) return true;
      await sleep(COPY_LOOK_MS);
    }
    return false;
  }
}
