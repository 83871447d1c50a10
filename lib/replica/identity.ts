/**
 * Whether this device is the one that the cluster knows (docs/architecture/replica.md "Identity"). Every opening draws
 * a random token and registers it with the config nodes, in a record of its own whose key is the device: a
 * compare-and-set from a token that the device knows to be registered, or that it tried, to the new one.
 *
 * Invariants
 *  1. Registered is said only after a majority has accepted a record with this opening's token, which followed one with
 *     a token that is stored on this device. So of two copies of a device one is registered at most.
 *  2. A token that was found and is known is chosen again under the own ballot before the new one is proposed: others
 *     that were tried earlier can never be chosen any more, and two are all that a device has to remember.
 *  3. A token is durable on the device before any config node hears of it.
 *  4. A device that is quarantined changes nothing, here or there. It goes on asking, for what a config node said that
 *     was not itself may have been wrong.
 *
 * The record also says where the device's node is reached, so the config nodes know all nodes of the cluster; and a
 * device can be taken out of it by a token that no device has.
 *
 * Not told from its original: a copy that was made during the opening that is registered, and is opened before the
 * original is opened again. A config node is one of the majority that is asked about it: of an old backup of one the
 * others know better only as far as they were heard.
 */
import { assert } from "../core/assert.js";
import type { Clock, Random, Timer } from "../core/clock.js";
import { VOLUME_ID_MAX } from "../core/ids.js";
import type { RecordStore } from "./acceptor.js";
import type { AcceptedRecord, Ballot, NodeId, PeerId } from "./api.js";
import { QUARANTINE_RETRY_MS, REGISTER_RETRY_MS } from "./limits.js";
import type { AcceptOutcome, Asking, PromiseOutcome } from "./register.js";
import { getU64, putU64 } from "./wire.js";

/** Where a device keeps the tokens that it knows; no volume and no device has this number. */
export const OWN_TOKENS_KEY = VOLUME_ID_MAX + 1;
/** Keys of devices at the config nodes begin here; below 2^53 all are exact. */
const DEVICE_KEYS_FROM = 2 ** 52;

/** "LaId" and "LaTk", little-endian; each is followed by its version. */
const RECORD_MAGIC = 0x6449_614c;
const TOKENS_MAGIC = 0x6b54_614c;
const FORMAT_VERSION = 1;
/** magic 4 · version 4 · device 16 · token 8; what follows is the place, in UTF-8. */
const RECORD_BYTES = 32;
/** Longest place, in bytes. */
const PLACE_BYTES_MAX = 512;
/** The token of a device that was never registered. */
const NO_TOKEN = 0;
/** The token of a device that was taken out of the cluster: no opening draws it. */
const RETIRED_TOKEN = Number.MAX_SAFE_INTEGER;

export type Standing =
  /** It is being found out: the device answers for no volume, and does not vote about any. */
  | "unknown"
  | "registered"
  /** Another copy of the device is the one that is known, or the config nodes never knew what this one says. */
  | "quarantined";

export interface RegistrationEnvironment {
  readonly store: RecordStore;
  readonly clock: Clock;
  readonly random: Random;
  readonly register: {
    promise(key: number, ballot: Ballot, done: (outcome: PromiseOutcome) => void): Asking;
    accept(key: number, record: AcceptedRecord, done: (outcome: AcceptOutcome) => void): Asking;
  };
  /** The device, and the peer id that the config nodes know this process by. */
  readonly node: NodeId;
  readonly peer: PeerId;
  /** Where its node is reached, for whoever asks the config nodes; absent: it is not told. */
  readonly place?: string;
  /** Told of every change; `why` is for people. */
  changed(standing: Standing, why: string): void;
}

/** Key of a device's record at the config nodes: two devices share one with a probability of 2^−52. */
export function deviceKeyOf(node: NodeId): number {
  // Device ids are random: any 52 bits of one are.
  const bits = Number.parseInt(node.slice(0, 13), 16);
  return DEVICE_KEYS_FROM + bits;
}

export function isDeviceKey(key: number): boolean {
  return key >= DEVICE_KEYS_FROM;
}

export class DeviceRegistration {
  readonly #environment: RegistrationEnvironment;
  readonly #key: number;
  readonly #token: number;
  #known: readonly number[];
  #standing: Standing = "unknown";
  #ballot: Ballot = { epoch: 0, owner: 0 };
  #asking: Asking | null = null;
  #timer: Timer | null = null;
  #stopped = false;

  /** Throws Error when the device's own page is damaged. */
  constructor(environment: RegistrationEnvironment) {
    this.#environment = environment;
    this.#key = deviceKeyOf(environment.node);
    this.#known = decodeTokens(environment.store.records().get(OWN_TOKENS_KEY) ?? null);
    const { random } = environment;
    this.#token = 1 + random.u32() * 2 ** 20 + (random.u32() >>> 12);
  }

  get standing(): Standing {
    return this.#standing;
  }

  get key(): number {
    return this.#key;
  }

  /** Config nodes that have to be heard. */
  get waitingFor(): readonly NodeId[] {
    return this.#asking?.waitingFor ?? [];
  }

  start(): void {
    this.#promise(this.#ballot.epoch + 1);
  }

  stop(): void {
    this.#stopped = true;
    this.#asking?.cancel();
    this.#timer?.cancel();
  }

  /** A config node has promised `epoch` of this device's record: whoever asked may be a copy of it. */
  promised(epoch: number): void {
    if (this.#stopped || this.#standing !== "registered" || epoch <= this.#ballot.epoch) return;
    this.#stand("unknown", "somebody else speaks for this device");
    this.#again(epoch);
  }

  #stand(standing: Standing, why: string): void {
    this.#standing = standing;
    this.#environment.changed(standing, why);
  }

  #promise(epoch: number): void {
    const { register, peer } = this.#environment;
    this.#ballot = { epoch, owner: peer };
    this.#ask(
      register.promise(this.#key, this.#ballot, (outcome) => {
        if (this.#stopped) return;
        if (outcome.kind === "refused") this.#again(outcome.promised.epoch);
        else this.#found(outcome.highest);
      }),
    );
  }

  #ask(asking: Asking): void {
    this.#asking?.cancel();
    this.#asking = asking;
  }

  /** After a pause that two copies do not choose alike. */
  #again(seen: number): void {
    const { clock, random } = this.#environment;
    this.#asking?.cancel();
    const pause = REGISTER_RETRY_MS + (random.u32() % REGISTER_RETRY_MS);
    this.#timer = clock.setTimer(pause, () => this.#promise(Math.max(seen, this.#ballot.epoch) + 1));
  }

  #found(highest: AcceptedRecord | null): void {
    const { node } = this.#environment;
    const bytes = highest?.bytes ?? encodeDevice({ node, token: NO_TOKEN, place: "" });
    const device = decodeDevice(bytes);
    const generation = (highest?.generation ?? 0) + 1;
    if (device === null || device.node !== node) {
      this.#quarantine("its record at the config nodes is that of another device");
    } else if (device.token === RETIRED_TOKEN) {
      this.#quarantine("it was taken out of the cluster");
    } else if (!this.#known.includes(device.token)) {
      this.#quarantine(
        "another copy of this device is registered, or this one is older than what is registered",
      );
    } else {
      this.#accept(generation, bytes, () => {
        if (device.token === this.#token) this.#stand("registered", "");
        else this.#remember([device.token, this.#token], () => this.#propose(generation + 1));
      });
    }
  }

  #propose(generation: number): void {
    const { node, place = "" } = this.#environment;
    this.#accept(generation, encodeDevice({ node, token: this.#token, place }), () => {
      this.#remember([this.#token], () => this.#stand("registered", ""));
    });
  }

  #quarantine(why: string): void {
    const { clock } = this.#environment;
    this.#asking?.cancel();
    this.#stand("quarantined", why);
    this.#timer = clock.setTimer(QUARANTINE_RETRY_MS, () => this.#promise(this.#ballot.epoch + 1));
  }

  #accept(generation: number, bytes: Uint8Array, chosen: () => void): void {
    const record = { ballot: this.#ballot, generation, bytes };
    this.#ask(
      this.#environment.register.accept(this.#key, record, (outcome) => {
        if (this.#stopped) return;
        assert(outcome.kind !== "name-taken", "a device claims no name");
        if (outcome.kind === "refused") this.#again(outcome.promised.epoch);
        else chosen();
      }),
    );
  }

  /** `then` when the tokens are durable; a device that cannot store them stays unknown. */
  #remember(tokens: readonly number[], then: () => void): void {
    this.#environment.store.putRecord(OWN_TOKENS_KEY, encodeTokens(tokens), (error) => {
      if (this.#stopped || error !== null) return;
      this.#known = tokens;
      then();
    });
  }
}

/** What the config nodes know of a device. */
export interface DeviceEntry {
  readonly node: NodeId;
  readonly token: number;
  /** Where its node is reached; empty: it has not said. */
  readonly place: string;
}

/** It is not one of the cluster's any more. */
export function isRetired({ token }: DeviceEntry): boolean {
  return token === RETIRED_TOKEN;
}

/** The record by which a device is taken out of the cluster. */
export function encodeRetired(node: NodeId): Uint8Array {
  return encodeDevice({ node, token: RETIRED_TOKEN, place: "" });
}

function encodeDevice({ node, token, place }: DeviceEntry): Uint8Array {
  const text = new TextEncoder().encode(place);
  assert(text.length <= PLACE_BYTES_MAX, "a place is a host and a port");
  const bytes = new Uint8Array(RECORD_BYTES + text.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, RECORD_MAGIC, true);
  view.setUint32(4, FORMAT_VERSION, true);
  for (let i = 0; i < 16; i++) bytes[8 + i] = Number.parseInt(node.slice(2 * i, 2 * i + 2), 16);
  putU64(view, 24, token);
  bytes.set(text, RECORD_BYTES);
  return bytes;
}

/** Null: the bytes say of no device who it is. */
export function decodeDevice(bytes: Uint8Array): DeviceEntry | null {
  if (bytes.length < RECORD_BYTES || bytes.length > RECORD_BYTES + PLACE_BYTES_MAX) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0, true) !== RECORD_MAGIC || view.getUint32(4, true) !== FORMAT_VERSION) return null;
  const node = Array.from(bytes.subarray(8, 24), (byte) => byte.toString(16).padStart(2, "0")).join("");
  const place = new TextDecoder().decode(bytes.subarray(RECORD_BYTES));
  return { node, token: getU64(view, 24), place };
}

/** magic 4 · version 4 · tokens, 8 each */
function encodeTokens(tokens: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(8 + 8 * tokens.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, TOKENS_MAGIC, true);
  view.setUint32(4, FORMAT_VERSION, true);
  tokens.forEach((token, i) => {
    putU64(view, 8 + 8 * i, token);
  });
  return bytes;
}

function decodeTokens(bytes: Uint8Array | null): readonly number[] {
  if (bytes === null) return [NO_TOKEN];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const isWhole = bytes.length >= 16 && bytes.length % 8 === 0;
  if (!isWhole || view.getUint32(0, true) !== TOKENS_MAGIC)
    throw new Error("its identity page holds something else");
  const version = view.getUint32(4, true);
  if (version !== FORMAT_VERSION) throw new Error(`version ${version} of its identity page is unknown`);
  return Array.from({ length: bytes.length / 8 - 1 }, (_, i) => getU64(view, 8 + 8 * i));
}
