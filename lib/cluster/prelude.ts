/**
 * What precedes every conversation between processes of a cluster (docs/architecture/cluster.md "Link key"): each
 * side proves that it has the cluster's key, and the node says who it is. Before that nothing is taken from anyone.
 *
 *     asker → node   "LnAu" 4 · version 2 · purpose 2 · nonce 32
 *     node → asker   "LnAu" 4 · version 2 · 0 2 · nonce 32 · node 16 · cluster 16 · proof 32
 *     asker → node   proof 32
 *
 * Both proofs cover purpose, both nonces, node and cluster, under labels of their own: neither can be reflected, and
 * neither is good for another connection. Over TLS they also cover the connection itself (`channelBinding`), so nobody
 * in between can hand them on.
 */
import { randomBytes } from "node:crypto";
import type { ByteStream } from "../core/stream.js";
import type { NodeId } from "../replica/api.js";
import { deviceIdOf, nodeIdOf, sameId } from "../replica/greeting.js";
import { HELLO_DEADLINE_MS } from "../replica/limits.js";
import type { Handshaking } from "../uring/tls-handshake.js";
import { type ClusterKey, PROOF_BYTES } from "./key.js";
import type { LinkTls } from "./link-tls.js";
import { Talk, type TalkEnvironment } from "./talk.js";

/** What proofs cover of a connection that is not encrypted. */
const UNBOUND = new Uint8Array(0);
const MAGIC = 0x7541_6e4c;
const VERSION = 1;
const ID_BYTES = 16;
const NONCE_BYTES = 32;
const ASK_BYTES = 8 + NONCE_BYTES;
const ANSWER_BYTES = 8 + NONCE_BYTES + 2 * ID_BYTES + PROOF_BYTES;
const NODE_LABEL = "lamina node 1";
const ASKER_LABEL = "lamina asker 1";
/** Connections of a node whose asker has not proved itself. A further one is closed at once. */
export const PRELUDES_MAX = 64;
/** Longest answer to a question about a node; a longer one is not read. */
export const ANSWER_TEXT_MAX = 16 * 1024 * 1024;
/** Longest text that goes with a question; a longer one ends the conversation. */
export const QUESTION_TEXT_MAX = 16 * 1024;

export const Purpose = {
  /** The node protocol follows, beginning with Hello. */
  Session: 1,
  /** The node describes itself: one text. */
  Describe: 2,
  /** Every volume record that it has accepted: one text. */
  Records: 3,
  /** Every device that is registered with it: one text. */
  Devices: 4,
  /** Which extents it holds, and its capacity: one text. */
  Extents: 5,
  /** A text of the asker's comes first: what a gateway has to say to others. Then one text: what they say. */
  Board: 6,
} as const;
export type Purpose = (typeof Purpose)[keyof typeof Purpose];

/** Why an asker was not let in, or would not go in. */
export type Fault =
  | { readonly kind: "lost"; readonly what: string }
  /** The other side does not have our key, or is of another cluster. */
  | { readonly kind: "key" }
  /** It is another node than was expected. */
  | { readonly kind: "node"; readonly found: NodeId };

/** Proves to the node at the other end of `stream` that we belong to its cluster, and has it prove the same. */
export function askNode(
  environment: TalkEnvironment,
  stream: ByteStream,
  key: ClusterKey,
  options: { readonly purpose: Purpose; readonly expected: NodeId | null },
  done: (talk: Talk | null, node: NodeId, fault: Fault | null) => void,
): void {
  let fault: Fault | null = null;
  const binding = stream.channelBinding ?? UNBOUND;
  const talk = new Talk(environment, stream, HELLO_DEADLINE_MS, (what) =>
    done(null, "", fault ?? { kind: "lost", what: stream.fault ?? what }),
  );
  const refuse = (why: Fault): void => {
    fault = why;
    talk.close("refused");
  };
  const ask = head(options.purpose, ASK_BYTES);
  ask.set(randomBytes(NONCE_BYTES), 8);
  talk.send(ask, () => {
    talk.receive(ANSWER_BYTES, (answer) => {
      if (!isHead(answer)) {
        refuse({ kind: "lost", what: "it does not speak this version of the node protocol" });
        return;
      }
      const said = answer.subarray(8, ANSWER_BYTES - PROOF_BYTES);
      const device = answer.subarray(8 + NONCE_BYTES, 8 + NONCE_BYTES + ID_BYTES);
      const cluster = answer.subarray(8 + NONCE_BYTES + ID_BYTES, ANSWER_BYTES - PROOF_BYTES);
      const proof = answer.subarray(ANSWER_BYTES - PROOF_BYTES);
      if (!sameId(cluster, key.cluster) || !key.isProof(proof, NODE_LABEL, ask, said, binding)) {
        refuse({ kind: "key" });
        return;
      }
      const node = nodeIdOf(device);
      if (options.expected !== null && options.expected !== node) {
        refuse({ kind: "node", found: node });
        return;
      }
      talk.send(key.prove(ASKER_LABEL, ask, said, binding), () => done(talk, node, null));
    });
  });
}

/** What a node asks of whoever connects. */
export interface Credentials {
  readonly key: ClusterKey;
  /** Null: links are plain. */
  readonly tls: LinkTls | null;
}

export interface Reception {
  /** An asker of the cluster wants to use the node protocol. The stream is the receiver's. */
  session(stream: ByteStream): void;
  describe(): string;
  records(): string;
  devices(): string;
  extents(): string;
  /** Throws Error: the note is none. */
  board(note: string): string;
  /** Somebody without the key, or whom TLS has turned away. */
  refused(stream: ByteStream, why: string): void;
}

/** A node's end: admits who has the key, over TLS if there is any, and then over nothing else. */
export class Porter {
  readonly #environment: TalkEnvironment;
  readonly #key: ClusterKey;
  readonly #id: Uint8Array;
  readonly #reception: Reception;
  readonly #tls: LinkTls | null;
  readonly #handshakes = new Set<Handshaking>();
  readonly #open = new Set<Talk>();

  constructor(environment: TalkEnvironment, { key, tls }: Credentials, node: NodeId, reception: Reception) {
    this.#environment = environment;
    this.#key = key;
    this.#tls = tls;
    this.#id = deviceIdOf(node);
    this.#reception = reception;
  }

  /** A connection has come. */
  admit(stream: ByteStream): void {
    if (this.#open.size + this.#handshakes.size >= PRELUDES_MAX) {
      stream.setListener(NOBODY);
      stream.close();
      return;
    }
    if (this.#tls === null) {
      this.#listenTo(stream);
      return;
    }
    const handshake = this.#tls.accept(stream, (secured, reason) => {
      this.#handshakes.delete(handshake);
      if (secured !== null) this.#listenTo(secured);
      else this.#reception.refused(stream, reason);
    });
    this.#handshakes.add(handshake);
  }

  #listenTo(stream: ByteStream): void {
    const talk: Talk = new Talk(this.#environment, stream, HELLO_DEADLINE_MS, () => this.#open.delete(talk));
    this.#open.add(talk);
    talk.receive(ASK_BYTES, (ask) => this.#asked(talk, stream, ask));
  }

  close(): void {
    for (const handshake of [...this.#handshakes]) handshake.abort();
    for (const talk of [...this.#open]) talk.close("the node shuts down");
  }

  #asked(talk: Talk, stream: ByteStream, ask: Uint8Array): void {
    const purpose = purposeOf(ask);
    if (!isHead(ask) || purpose === null) {
      talk.close("not a question of the cluster");
      return;
    }
    const binding = stream.channelBinding ?? UNBOUND;
    const answer = head(0, ANSWER_BYTES);
    answer.set(randomBytes(NONCE_BYTES), 8);
    answer.set(this.#id, 8 + NONCE_BYTES);
    answer.set(this.#key.cluster, 8 + NONCE_BYTES + ID_BYTES);
    const said = answer.subarray(8, ANSWER_BYTES - PROOF_BYTES);
    answer.set(this.#key.prove(NODE_LABEL, ask, said, binding), ANSWER_BYTES - PROOF_BYTES);
    talk.send(answer, () => {
      talk.receive(PROOF_BYTES, (proof) => {
        if (this.#key.isProof(proof, ASKER_LABEL, ask, said, binding)) {
          this.#admitted(talk, purpose);
          return;
        }
        this.#reception.refused(stream, "it does not have the cluster key");
        talk.close("a wrong key");
      });
    });
  }

  #admitted(talk: Talk, purpose: Purpose): void {
    if (purpose === Purpose.Session) {
      this.#open.delete(talk);
      this.#reception.session(talk.release());
      return;
    }
    if (purpose !== Purpose.Board) {
      this.#tell(talk, this.#answer(purpose));
      return;
    }
    receiveLong(talk, QUESTION_TEXT_MAX, (note) => {
      try {
        this.#tell(talk, this.#reception.board(note));
      } catch {
        talk.close("not a note");
      }
    });
  }

  #tell(talk: Talk, text: string): void {
    // The asker hangs up when it has everything.
    talk.send(lengthAnd(text), () => talk.receive(1, () => talk.close("done")));
  }

  #answer(purpose: Exclude<Purpose, typeof Purpose.Session | typeof Purpose.Board>): string {
    switch (purpose) {
      case Purpose.Describe:
        return this.#reception.describe();
      case Purpose.Records:
        return this.#reception.records();
      case Purpose.Devices:
        return this.#reception.devices();
      case Purpose.Extents:
        return this.#reception.extents();
    }
  }
}

/** The text that follows when a node was asked about itself. `talk` ends; where it ends without one nothing is told. */
export function receiveText(talk: Talk, done: (text: string | null) => void): void {
  const impossible = (): void => done(null);
  receiveLong(
    talk,
    ANSWER_TEXT_MAX,
    (text) => {
      done(text);
      talk.close("done");
    },
    impossible,
  );
}

/** The text that goes with a question; then `then`. */
export function sendText(talk: Talk, text: string, then: () => void): void {
  talk.send(lengthAnd(text), then);
}

function receiveLong(
  talk: Talk,
  max: number,
  done: (text: string) => void,
  impossible: () => void = () => undefined,
): void {
  talk.receive(4, (length) => {
    const bytes = new DataView(length.buffer).getUint32(0, true);
    if (bytes === 0 || bytes > max) {
      talk.close("a text of an impossible length");
      impossible();
      return;
    }
    talk.receive(bytes, (text) => done(new TextDecoder().decode(text)));
  });
}

function lengthAnd(text: string): Uint8Array {
  const body = new TextEncoder().encode(text);
  const message = new Uint8Array(4 + body.length);
  new DataView(message.buffer).setUint32(0, body.length, true);
  message.set(body, 4);
  return message;
}

function head(purpose: number, bytes: number): Uint8Array {
  const message = new Uint8Array(bytes);
  const view = new DataView(message.buffer);
  view.setUint32(0, MAGIC, true);
  view.setUint16(4, VERSION, true);
  view.setUint16(6, purpose, true);
  return message;
}

function isHead(message: Uint8Array): boolean {
  const view = new DataView(message.buffer, message.byteOffset);
  return view.getUint32(0, true) === MAGIC && view.getUint16(4, true) === VERSION;
}

function purposeOf(ask: Uint8Array): Purpose | null {
  const wanted = new DataView(ask.buffer, ask.byteOffset).getUint16(6, true);
  return Object.values(Purpose).find((purpose) => purpose === wanted) ?? null;
}

const NOBODY = { streamReceived(): void {}, streamSent(): void {}, streamClosed(): void {} };
