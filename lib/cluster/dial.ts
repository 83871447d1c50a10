/** Ways to the nodes of a cluster: connections for the node protocol, and questions about a node. */
import { LaminaError } from "../core/errors.js";
import type { ByteStream } from "../core/stream.js";
import type { Network, NodeId } from "../replica/api.js";
import { SILENCE_MAX_MS } from "../replica/limits.js";
import { addressText } from "../uring/address.js";
import type { Engine, ListenAddress } from "../uring/api.js";
import type { ClusterKey } from "./key.js";
import { nearby } from "./nearby.js";
import { askNode, type Fault, Purpose, receiveText, sendText } from "./prelude.js";
import type { Talk } from "./talk.js";

export interface DialEnvironment extends Pick<Engine, "pool" | "clock" | "connect"> {
  /** Nodes on this machine are asked over a unix socket first (nearby.ts). */
  readonly nearby?: boolean;
}
export type NodeAddress = Extract<ListenAddress, { kind: "tcp" }>;

/** A node of the cluster and where it listens. */
export interface NodePlace {
  readonly node: NodeId;
  readonly address: NodeAddress;
}

export class ClusterNetwork implements Network {
  readonly #environment: DialEnvironment;
  readonly #key: ClusterKey;
  readonly #addressOf: (node: NodeId) => NodeAddress | null;
  readonly #faults = new Map<NodeId, string>();

  /** `addressOf`: null while it is not known where the node is. */
  constructor(
    environment: DialEnvironment,
    key: ClusterKey,
    addressOf: (node: NodeId) => NodeAddress | null,
  ) {
    this.#environment = environment;
    this.#key = key;
    this.#addressOf = addressOf;
  }

  /** Why the last attempt to reach a node failed; null when it did not. */
  faultOf(node: NodeId): string | null {
    return this.#faults.get(node) ?? null;
  }

  dial(node: NodeId, done: (stream: ByteStream | null) => void): void {
    const address = this.#addressOf(node);
    if (address === null) {
      this.#faults.set(node, `no config node knows where node ${node} is`);
      this.#environment.clock.setTimer(0, () => done(null));
      return;
    }
    const failed = (error: LaminaError): void => {
      this.#faults.set(node, error.message);
      done(null);
    };
    const asked = { address, purpose: Purpose.Session, expected: node };
    converse(this.#environment, this.#key, asked, failed, (talk) => {
      this.#faults.delete(node);
      done(talk.release());
    });
  }
}

/** What the node at `address` says of itself, or its records. Throws LaminaError. */
export function askText(
  environment: DialEnvironment,
  key: ClusterKey,
  asked: Asked,
): Promise<{ node: NodeId; text: string }> {
  return new Promise((resolve, reject) => {
    converse(environment, key, asked, reject, (talk, node) => {
      const receive = (): void =>
        receiveText(talk, (text) => {
          if (text === null) reject(refused(asked.address, "its answer is of an impossible length"));
          else resolve({ node, text });
        });
      if (asked.question === undefined) receive();
      else sendText(talk, asked.question, receive);
    });
  });
}

interface Asked {
  readonly address: NodeAddress;
  readonly purpose: Purpose;
  /** Null: whoever is there. */
  readonly expected: NodeId | null;
  /** The text that goes with the question, where there is one. */
  readonly question?: string;
}

/** One of the two is called, and `failed` perhaps after `ready`: what then fails is what `ready` has begun. */
function converse(
  environment: DialEnvironment,
  key: ClusterKey,
  asked: Asked,
  failed: (error: LaminaError) => void,
  ready: (talk: Talk, node: NodeId) => void,
): void {
  const { address, expected } = asked;
  if (environment.nearby !== true || expected === null) {
    converseAt(address, environment, key, asked, failed, ready);
    return;
  }
  let isReady = false;
  // Whatever is wrong there: where the node is registered counts.
  const elsewhere = (error: LaminaError): void => {
    if (isReady) failed(error);
    else converseAt(address, environment, key, asked, failed, ready);
  };
  converseAt(nearby(expected, address), environment, key, asked, elsewhere, (talk, node) => {
    isReady = true;
    ready(talk, node);
  });
}

function converseAt(
  address: ListenAddress,
  environment: DialEnvironment,
  key: ClusterKey,
  { purpose, expected }: Asked,
  failed: (error: LaminaError) => void,
  ready: (talk: Talk, node: NodeId) => void,
): void {
  let tooLate = false;
  // A host that has gone dark does not refuse.
  const deadline = environment.clock.setTimer(SILENCE_MAX_MS, () => {
    tooLate = true;
    failed(refused(address, "it does not answer"));
  });
  environment.connect(address).then(
    (stream) => {
      deadline.cancel();
      if (tooLate) {
        stream.setListener(NOBODY);
        stream.close();
        return;
      }
      askNode(environment, stream, key, { purpose, expected }, (talk, node, fault) => {
        if (talk === null) failed(errorOf(address, fault!));
        else ready(talk, node);
      });
    },
    (error: unknown) => {
      deadline.cancel();
      if (!(error instanceof LaminaError)) throw error;
      if (!tooLate) failed(error);
    },
  );
}

function errorOf(address: ListenAddress, fault: Fault): LaminaError {
  const text = addressText(address);
  switch (fault.kind) {
    case "key":
      return new LaminaError("CLUSTER_KEY_WRONG", { address: text });
    case "node":
      return new LaminaError("CLUSTER_NODE_STRANGE", {
        address: text,
        what: `it says that it is ${fault.found}`,
      });
    case "lost":
      return refused(address, fault.what);
  }
}

export function refused(address: ListenAddress, what: string): LaminaError {
  return new LaminaError("CONNECT_REFUSED", { address: addressText(address), what });
}

const NOBODY = { streamReceived(): void {}, streamSent(): void {}, streamClosed(): void {} };
