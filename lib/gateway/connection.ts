/**
 * One connection from its first to its last byte.
 *
 *   handshake ⇄ opening ──► transmission ──► lingering ──► closing ──► closed
 *       │          │              │                           ▲
 *       └──────────┴──────────────┴───────────────────────────┘  cut()
 *
 * Invariants
 *  1. Its memory is given back only when the stream touches it no more (`streamClosed`), and it is over only
 *     when in addition the volume has answered everything it was asked: a late completion finds its own
 *     connection, never another one.
 *  2. No backend is touched before GO; the volume is held open from then until the connection is over.
 *  3. Memory in the handshake is the home and the handshake machine's own bounds. Output is sent before
 *     more input is taken, so a client that does not read cannot make it grow.
 *  4. Who loses the right to the volume gets the answers that are due and no others, and is ended.
 *  5. Until it reaches the transmission phase it has HANDSHAKE_DEADLINE_MS, whatever it does. Time in which this process
 *     stood still is not the client's.
 */
import {
  type ExportInfo,
  NBD_REP_ERR_SHUTDOWN,
  NBD_REP_ERR_UNKNOWN,
  ServerHandshake,
  type TlsMode,
} from "nbd-protocol-ts";
import { assert } from "../core/assert.js";
import type { Timer } from "../core/clock.js";
import { BLOCK_BYTES, HANDSHAKE_DEADLINE_MS } from "../core/limits.js";
import type { ByteStream, StreamListener } from "../core/stream.js";
import type { VolumeRecord } from "../replica/record.js";
import type { OpenVolume } from "../volume/registry-api.js";
import { ClientExports, type ClientIdentity, type ExportPolicy, type VolumeNames } from "./exports.js";
import { HOME_HEADERS, HOME_RECEIVE, LINGER_MS, PATIENCE_STEPS, WITHDRAWAL_GRACE_MS } from "./limits.js";
import type { GatewayParts } from "./parts.js";
import { Transmission, type TransmissionOwner } from "./transmission.js";

const PAGE_BYTES = BLOCK_BYTES;
const WITHDRAWN = "its right to the volume was withdrawn";

export type Phase = "handshake" | "opening" | "transmission" | "lingering" | "closing" | "closed";

/** Where volumes come from, told by callback so that the simulator needs no promises. */
export interface VolumeSource extends VolumeNames {
  /** `done` once, with the volume or with a sentence that says why not. Never from inside the call. */
  open(name: string, done: (opened: OpenVolume | null, reason: string) => void): void;
}

/** How a stream is encrypted after STARTTLS. */
export interface TlsUpgrade {
  readonly mode: TlsMode;
  /**
   * Takes the stream over: no byte of it has been received beyond the option, and its last output was sent.
   * `done` once, never from inside the call: with the encrypted stream and the client's identity, or with
   * null and a reason once the stream has been closed.
   */
  upgrade(stream: ByteStream, done: (secured: SecuredStream | null, reason: string) => void): Upgrading;
}

export interface Upgrading {
  /** Gives up: `done` follows with null. Harmless after `done`. */
  abort(): void;
}

export interface SecuredStream {
  readonly stream: ByteStream;
  readonly certificate: string | null;
  readonly psk: string | null;
}

export interface ConnectionOptions {
  readonly source: VolumeSource;
  readonly policy: ExportPolicy;
  readonly tls: TlsUpgrade | null;
}

export interface ConnectionOwner {
  readonly shuttingDown: boolean;
  /** The handshake is over, one way or the other. */
  handshakeEnded(connection: Connection): void;
  /**
   * A client is about to use a volume. `go` when older connections whose peers have gone cannot execute
   * anything on it any more.
   */
  admit(connection: Connection, volume: number, go: () => void): void;
  /** Nothing of the connection is left in the volume; after `cut`. */
  connectionDrained(connection: Connection): void;
  /** It uses no volume any more, and will not again. */
  volumeReleased(): void;
  /** Stream closed, memory given back, volume released. */
  connectionOver(connection: Connection, reason: string): void;
}

export class Connection implements StreamListener, TransmissionOwner {
  readonly number: number;
  readonly #parts: GatewayParts;
  readonly #options: ConnectionOptions;
  readonly #owner: ConnectionOwner;
  readonly #home: number;
  #stream: ByteStream;
  readonly #exports: ClientExports;
  readonly #handshake: ServerHandshake;
  #phase: Phase = "handshake";
  #reason = "";
  #receiving = false;
  #sending = false;
  #streamClosed = false;
  /** Received and not yet fed, relative to the home's receive page. */
  #start = 0;
  #end = 0;
  #deadline: Timer | null = null;
  #deadlinePassed = false;
  #inHandshake = true;
  #opened: OpenVolume | null = null;
  #lastName = "";
  /** The volume is being opened, or the connection waits to be admitted to it: a callback is to come. */
  #opening = false;
  #upgrading: Upgrading | null = null;
  #transmission: Transmission | null = null;
  /** When it is cut: a peer that does not end its side, or takes no replies, is not waited for longer. */
  #grace: Timer | null = null;
  /** What the client was promised at GO. */
  #granted: ExportInfo | null = null;
  #withdrawn = false;
  readonly startedAt: number;

  /** `home`: from `Memory.takeHome`, the connection's until it is over. */
  constructor(
    number: number,
    stream: ByteStream,
    home: number,
    parts: GatewayParts,
    options: ConnectionOptions,
    owner: ConnectionOwner,
  ) {
    this.number = number;
    this.#stream = stream;
    this.#home = home;
    this.#parts = parts;
    this.#options = options;
    this.#owner = owner;
    this.startedAt = parts.clock.wall();
    const client = { peer: stream.peer, tls: false, certificate: null, psk: null };
    this.#exports = new ClientExports(options.source, options.policy, client);
    const tlsMode = options.tls?.mode ?? "notls";
    this.#handshake = new ServerHandshake({ directory: this.#exports, tlsMode });
  }

  get phase(): Phase {
    return this.#phase;
  }

  get client(): ClientIdentity {
    return this.#exports.client;
  }

  /** Id of the volume that is open for it; 0 before. */
  get volume(): number {
    return this.#opened?.volume.id ?? 0;
  }

  /** Name of the volume that it has or had open; empty before. */
  get volumeName(): string {
    return this.#opened?.volume.name ?? this.#lastName;
  }

  /** Commands in flight. */
  get inFlight(): number {
    return this.#transmission?.inFlight ?? 0;
  }

  /** Parts of requests that the volume is working on. */
  get inVolume(): number {
    return this.#transmission?.inVolume ?? 0;
  }

  /** It has a volume open, or is about to. */
  get usesVolume(): boolean {
    return this.#opened !== null || this.#opening || this.inVolume > 0;
  }

  get inHandshake(): boolean {
    return this.#inHandshake;
  }

  /** Bytes of the pool beyond its home. */
  get heldBytes(): number {
    return this.#transmission?.heldBytes ?? 0;
  }

  /** The peer has gone, or has said that it goes: what it has not been answered, it will send again elsewhere. */
  get peerGone(): boolean {
    return this.#transmission?.peerLeftAlready === true || this.#stream.peerGone?.() === true;
  }

  start(): void {
    this.#stream.setListener(this);
    this.#countDown(PATIENCE_STEPS);
    this.#pump();
  }

  /** Polite end: what has arrived is answered, what comes later is not. */
  shutDown(): void {
    if (this.#phase === "handshake" || this.#phase === "opening") this.#handshake.shutDown();
    else if (this.#phase === "transmission") this.#transmission?.shutDown();
  }

  /** The record of its volume is another one now. */
  recordChanged(record: VolumeRecord): void {
    if (this.#phase !== "transmission" || this.#withdrawn) return;
    if (this.#exports.keepsRight(this.#granted!, record)) return;
    this.#withdrawn = true;
    this.#parts.counters.rightsWithdrawn++;
    this.#cutAfter(WITHDRAWAL_GRACE_MS, WITHDRAWN);
    this.#transmission!.shutDown();
  }

  /** Ends it now. What the volume has begun runs to completion, everything else is forgotten. */
  cut(reason: string): void {
    if (this.#phase === "closing" || this.#phase === "closed") return;
    this.#enter("closing", reason);
    this.#transmission?.abandon();
    if (this.#upgrading !== null) this.#upgrading.abort();
    else this.#stream.close();
    if (this.inVolume === 0) this.#owner.connectionDrained(this);
  }

  #enter(phase: Phase, reason: string): void {
    this.#phase = phase;
    if (reason !== "" && this.#reason === "") this.#reason = reason;
    if (this.#inHandshake && phase !== "handshake" && phase !== "opening") {
      this.#inHandshake = false;
      this.#deadline?.cancel();
      this.#owner.handshakeEnded(this);
    }
    if (phase === "closing") this.#grace?.cancel();
  }

  #countDown(steps: number): void {
    this.#deadline = this.#parts.clock.setTimer(HANDSHAKE_DEADLINE_MS / PATIENCE_STEPS, () => {
      if (steps > 1) this.#countDown(steps - 1);
      else this.#deadlineReached();
    });
  }

  #deadlineReached(): void {
    this.#deadlinePassed = true;
    // Opening a volume may have to wait, which is not the client's fault.
    if (this.#phase === "handshake") this.#timeOut();
  }

  #timeOut(): void {
    this.#parts.counters.handshakesTimedOut++;
    this.cut("the handshake was not finished in time");
  }

  // ---- Handshake --------------------------------------------------------------------------------------------

  /** Does what can be done now: send output, take input, open the volume. */
  #pump(): void {
    for (;;) {
      if (this.#sending || (this.#phase !== "handshake" && this.#phase !== "opening")) return;
      if (this.#sendOutput()) return;
      switch (this.#handshake.state) {
        case "greeting":
        case "haggling":
          if (!this.#feed()) return;
          break;
        case "starttls":
          this.#startTls();
          return;
        case "opening":
          if (!this.#opening) this.#open();
          return;
        case "transmission":
          this.#begin();
          return;
        case "closed":
          this.#finish("the client gave up");
          return;
        case "dead":
          this.#parts.counters.protocolErrors++;
          this.cut(this.#handshake.reason);
          return;
      }
    }
  }

  /** True when there was output and it is on its way. */
  #sendOutput(): boolean {
    if (this.#handshake.outputLength === 0 || this.#handshake.state === "dead") return false;
    const at = this.#home + HOME_HEADERS;
    const length = this.#handshake.drainOutput(this.#parts.pool.bytes, at, PAGE_BYTES);
    const { gather } = this.#parts.scratch;
    gather[0] = at;
    gather[1] = length;
    this.#sending = true;
    this.#stream.send(gather, 1);
    return true;
  }

  /** Feeds what has arrived, or asks for more; false when there is nothing to do but wait. */
  #feed(): boolean {
    if (this.#start === this.#end) {
      if (!this.#receiving) this.#receive();
      return false;
    }
    const base = this.#home + HOME_RECEIVE;
    const { bytes } = this.#parts.pool;
    this.#start += this.#handshake.feed(bytes, base + this.#start, base + this.#end);
    return true;
  }

  #receive(): void {
    this.#receiving = true;
    this.#start = 0;
    this.#end = 0;
    this.#stream.receive(this.#home + HOME_RECEIVE, PAGE_BYTES);
  }

  #startTls(): void {
    const tls = this.#options.tls;
    assert(tls !== null, "STARTTLS is accepted only where TLS is set up");
    if (this.#start < this.#end) {
      this.#parts.counters.protocolErrors++;
      this.cut("the client sent plaintext behind STARTTLS");
      return;
    }
    this.#sending = true;
    this.#upgrading = tls.upgrade(this.#stream, (secured, reason) => this.#secured(secured, reason));
  }

  #secured(secured: SecuredStream | null, reason: string): void {
    this.#sending = false;
    this.#upgrading = null;
    if (secured === null) {
      if (this.#phase !== "closing") {
        this.#enter("closing", reason);
        this.#owner.connectionDrained(this);
      }
      this.#streamClosed = true;
      this.#maybeOver();
      return;
    }
    this.#stream = secured.stream;
    this.#stream.setListener(this);
    const { peer } = this.#exports.client;
    this.#exports.client = { peer, tls: true, certificate: secured.certificate, psk: secured.psk };
    this.#handshake.tlsEstablished();
    this.#pump();
  }

  // ---- Opening ----------------------------------------------------------------------------------------------

  #open(): void {
    const { info } = this.#handshake.opening!;
    this.#opening = true;
    this.#enter("opening", "");
    this.#options.source.open(info.name, (opened, reason) => this.#openDone(info, opened, reason));
  }

  #openDone(info: ExportInfo, opened: OpenVolume | null, reason: string): void {
    if (this.#phase !== "opening") {
      this.#opening = false;
      opened?.release();
      this.#maybeOver();
      return;
    }
    if (opened === null || this.#owner.shuttingDown) {
      this.#opening = false;
      opened?.release();
      const type = this.#owner.shuttingDown ? NBD_REP_ERR_SHUTDOWN : NBD_REP_ERR_UNKNOWN;
      this.#refuse(type, opened === null ? reason : "the server is shutting down");
      return;
    }
    this.#opened = opened;
    this.#owner.admit(this, opened.volume.id, () => this.#admitted(info));
  }

  #refuse(type: number, text: string): void {
    this.#enter("handshake", "");
    this.#handshake.refused(type, text);
    if (this.#deadlinePassed) this.#timeOut();
    else this.#pump();
  }

  #admitted(info: ExportInfo): void {
    this.#opening = false;
    if (this.#phase !== "opening") {
      this.#maybeOver();
      return;
    }
    const { record, volume } = this.#opened!;
    this.#granted = this.#exports.opened(info, record, volume);
    this.#handshake.opened(this.#granted);
    this.#pump();
  }

  #begin(): void {
    const { volume } = this.#opened!;
    // The record may have changed since GO.
    const record = this.#options.source.byName(volume.name);
    if (record !== undefined && !this.#exports.keepsRight(this.#granted!, record)) {
      this.#parts.counters.rightsWithdrawn++;
      this.cut(WITHDRAWN);
      return;
    }
    const received = { start: this.#start, end: this.#end };
    const { negotiated } = this.#handshake;
    assert(negotiated !== null, "the handshake is over");
    this.#transmission = new Transmission(
      this.#parts,
      this.#stream,
      this.#home,
      received,
      volume,
      negotiated,
      this,
    );
    this.#enter("transmission", "");
    if (this.#owner.shuttingDown) this.#transmission.shutDown();
    this.#transmission.start();
  }

  // ---- Stream -----------------------------------------------------------------------------------------------

  streamReceived(result: number): void {
    if (this.#phase === "transmission") {
      this.#transmission!.received(result);
      return;
    }
    this.#receiving = false;
    if (this.#phase === "lingering") {
      if (result <= 0) this.cut("");
      else this.#receive();
    } else if (this.#phase === "handshake" || this.#phase === "opening") {
      if (result <= 0) {
        this.cut("the client left during the handshake");
        return;
      }
      this.#end = result;
      this.#pump();
    } else {
      this.#transmission?.received(result);
    }
  }

  streamSent(result: number): void {
    this.#sending = false;
    if (this.#transmission !== null) {
      this.#transmission.sent(result);
    } else if (result < 0) {
      this.cut("the client left during the handshake");
    } else {
      this.#pump();
    }
  }

  streamClosed(): void {
    if (this.#phase !== "closing") this.cut("the stream ended");
    this.#streamClosed = true;
    this.#transmission?.streamClosed();
    this.#maybeOver();
  }

  // ---- The end ----------------------------------------------------------------------------------------------

  transmissionOver(): void {
    this.#finish(this.#withdrawn ? WITHDRAWN : "");
  }

  transmissionBroken(reason: string): void {
    this.cut(reason);
  }

  transmissionDrained(): void {
    this.#owner.connectionDrained(this);
    this.#maybeOver();
  }

  /** Everything is said: ends our side, and closes when the peer has ended its own or LINGER_MS later. */
  #finish(reason: string): void {
    this.#enter("lingering", reason);
    this.#release();
    this.#stream.shutdown();
    // Under TLS our side ends with a close_notify, which has to be on its way first.
    if (this.#transmission?.peerLeftAlready === true && !this.client.tls) {
      this.cut("");
      return;
    }
    // A close with bytes unread would reset the connection, and with it take replies from the peer.
    this.#cutAfter(LINGER_MS, "");
    if (!this.#receiving && this.#transmission?.receiving !== true) this.#receive();
  }

  #cutAfter(milliseconds: number, reason: string): void {
    this.#grace?.cancel();
    this.#grace = this.#parts.clock.setTimer(milliseconds, () => this.cut(reason));
  }

  #release(): void {
    const opened = this.#opened;
    if (opened === null) return;
    this.#opened = null;
    this.#lastName = opened.volume.name;
    opened.release();
    this.#owner.volumeReleased();
  }

  #maybeOver(): void {
    if (!this.#streamClosed || this.#phase === "closed" || this.inVolume > 0 || this.#opening) return;
    this.#enter("closed", "");
    this.#release();
    this.#parts.memory.freeHome(this.#home);
    this.#owner.connectionOver(this, this.#reason);
  }
}
