/**
 * The server's side of the handshake: fixed newstyle negotiation, without I/O.
 *
 * Bytes from the client go in through `feed`, bytes for the client come out through `drainOutput` or
 * `takeOutput`. The machine decides nothing about sockets, time or storage; it stops in a state that says
 * what its owner has to do next:
 *
 *   greeting ──► haggling ──► opening ──► transmission
 *                │  ▲   ▲        │
 *                │  │   └────────┘ refused()
 *                ├──┼► starttls ─► haggling, everything forgotten
 *                │
 *                ├──► closed       NBD_OPT_ABORT: send the output, then close
 *                └──► dead         (from every state) drop the connection; `reason` says why
 *
 * Invariants
 *  1. Fed one byte at a time or all at once: the same states, the same output.
 *  2. Every option gets exactly one final reply, except NBD_OPT_EXPORT_NAME, whose failure is `dead`.
 *  3. `feed` never takes a byte behind the option that ended the haggling: what follows GO belongs to the
 *     transmission phase.
 *  4. Nothing negotiated before STARTTLS survives it (CVE-2021-3716), and any plaintext byte behind it is
 *     `dead`, so no injected option can be believed.
 *  5. Memory is bounded: OPTION_DATA_BYTES_MAX of input, OUTPUT_BYTES_HIGH plus one reply of output. No
 *     length of the client's is believed before it has been compared with a bound.
 *  6. The backend is not touched: until GO only `directory` is asked, which answers from memory.
 */
import { ByteQueue } from "./byte-queue.js";
import {
  CLIENT_FLAGS_BYTES,
  EXPORT_NAME_REPLY_BYTES,
  EXPORT_NAME_ZEROES_BYTES,
  GREETING_BYTES,
  IHAVEOPT_HIGH,
  IHAVEOPT_LOW,
  NBD_FLAG_C_FIXED_NEWSTYLE,
  NBD_FLAG_C_NO_ZEROES,
  NBD_FLAG_FIXED_NEWSTYLE,
  NBD_FLAG_NO_ZEROES,
  NBD_INFO_BLOCK_SIZE,
  NBD_INFO_DESCRIPTION,
  NBD_INFO_NAME,
  NBD_OPT_ABORT,
  NBD_OPT_EXPORT_NAME,
  NBD_OPT_EXTENDED_HEADERS,
  NBD_OPT_GO,
  NBD_OPT_INFO,
  NBD_OPT_LIST,
  NBD_OPT_LIST_META_CONTEXT,
  NBD_OPT_SET_META_CONTEXT,
  NBD_OPT_STARTTLS,
  NBD_OPT_STRUCTURED_REPLY,
  NBD_REP_ACK,
  NBD_REP_ERR_BLOCK_SIZE_REQD,
  NBD_REP_ERR_EXT_HEADER_REQD,
  NBD_REP_ERR_INVALID,
  NBD_REP_ERR_POLICY,
  NBD_REP_ERR_SHUTDOWN,
  NBD_REP_ERR_TLS_REQD,
  NBD_REP_ERR_TOO_BIG,
  NBD_REP_ERR_UNKNOWN,
  NBD_REP_ERR_UNSUP,
  NBD_REP_FLAG_ERROR,
  NBDMAGIC_HIGH,
  NBDMAGIC_LOW,
  OPTION_HEADER_BYTES,
} from "./constants.js";
import { CONTEXTS_MAX, ContextSelection, matchContexts } from "./contexts.js";
import {
  checkExportInfo,
  type ExportDirectory,
  type ExportInfo,
  type ExportSummary,
  flagsFor,
  type Negotiated,
} from "./export.js";
import { optionName } from "./names.js";
import {
  type ContextRequest,
  type InfoRequest,
  parseContextRequest,
  parseInfoRequest,
  putContextReply,
  putInfoBlockSize,
  putInfoExport,
  putInfoText,
  putOptionReply,
  putServerReply,
} from "./options.js";
import { ReplyMode } from "./reply.js";
import { decodeString, encodeErrorText, NO_BYTES, quoted } from "./text.js";
import { check, setU64 } from "./wire.js";

/** Longest data of an option that is kept, in bytes; above it a known option gets NBD_REP_ERR_TOO_BIG. */
export const OPTION_DATA_BYTES_MAX = 16 * 1024;
/**
 * Longest data of an option that is consumed and thrown away, in bytes, to stay in step with a client that
 * says something unknown or wrong. Above it the client is taken for an attacker (CVE-2017-15119).
 */
export const OPTION_SKIP_BYTES_MAX = 256 * 1024;
/** Options of one connection. One more is taken for an attack. */
export const OPTIONS_MAX = 4096;
/** While more output than this waits to be sent, in bytes, no input is taken and no listing goes on. */
export const OUTPUT_BYTES_HIGH = 16 * 1024;

/** NOTLS, FORCEDTLS and SELECTIVETLS of the specification. */
export type TlsMode = "notls" | "forced" | "selective";

export type ServerHandshakeState =
  /** The greeting is in the output; waiting for the client flags. */
  | "greeting"
  /** Options. Feed bytes, send output. */
  | "haggling"
  /** Send the output (it ends with the ACK), then start TLS and call `tlsEstablished`, or drop. */
  | "starttls"
  /** Open `opening`, then call `opened` or `refused`. Bytes that arrive meanwhile are the owner's to keep. */
  | "opening"
  /** `negotiated` is there. Send the output; what the client sends next are requests. */
  | "transmission"
  /** The client gave up politely. Send the output, then close. */
  | "closed"
  /** Drop the connection; `reason` says why. Output need not be sent. */
  | "dead";

const NEXT: Readonly<Record<ServerHandshakeState, readonly ServerHandshakeState[]>> = {
  greeting: ["haggling", "dead"],
  haggling: ["starttls", "opening", "closed", "dead"],
  starttls: ["haggling", "dead"],
  opening: ["haggling", "transmission", "dead"],
  transmission: ["dead"],
  closed: ["dead"],
  dead: [],
};

/** What is being read in the states greeting and haggling. */
type Reading = "client-flags" | "option-header" | "option-data" | "skipped-data";

export interface ServerHandshakeOptions {
  readonly directory: ExportDirectory;
  readonly tlsMode: TlsMode;
  /** The connection was encrypted before its first byte: STARTTLS is refused, TLS-only exports are served. */
  readonly tlsFromStart?: boolean;
  /** Offer NBD_OPT_EXTENDED_HEADERS; default true. */
  readonly extendedHeaders?: boolean;
  /**
   * Selective TLS: answer for an unknown export as for one that requires TLS, so that names cannot be
   * guessed without it; default true.
   */
  readonly hideUnknown?: boolean;
}

/** The export a client has asked for in its last option. */
export interface Opening {
  /** As the client wrote it, possibly empty. */
  readonly exportName: string;
  /** What the directory said. Its `name` is the canonical one. */
  readonly info: ExportInfo;
}

/** How the data of an option is treated, and what answers it. */
interface OptionRule {
  /** none: data is an error. ignored: any data is fine. kept: the handler gets it. */
  readonly data: "none" | "ignored" | "kept";
  readonly run: (machine: ServerHandshake, data: Uint8Array) => void;
}

export class ServerHandshake {
  /** The options of this server; every other one is unknown. */
  static readonly #RULES: ReadonlyMap<number, OptionRule> = new Map<number, OptionRule>([
    [NBD_OPT_EXPORT_NAME, { data: "kept", run: (machine, data) => machine.#exportName(data) }],
    [NBD_OPT_ABORT, { data: "ignored", run: (machine) => machine.#abort() }],
    [NBD_OPT_LIST, { data: "none", run: (machine) => machine.#list() }],
    [NBD_OPT_STARTTLS, { data: "none", run: (machine) => machine.#startTls() }],
    [NBD_OPT_INFO, { data: "kept", run: (machine, data) => machine.#info(data) }],
    [NBD_OPT_GO, { data: "kept", run: (machine, data) => machine.#info(data) }],
    [NBD_OPT_STRUCTURED_REPLY, { data: "none", run: (machine) => machine.#structuredReply() }],
    [NBD_OPT_LIST_META_CONTEXT, { data: "kept", run: (machine, data) => machine.#metaContext(data) }],
    [NBD_OPT_SET_META_CONTEXT, { data: "kept", run: (machine, data) => machine.#metaContext(data) }],
    [NBD_OPT_EXTENDED_HEADERS, { data: "none", run: (machine) => machine.#extendedHeaders() }],
  ]);

  #state: ServerHandshakeState = "greeting";
  #reason = "";
  readonly #directory: ExportDirectory;
  readonly #tlsMode: TlsMode;
  readonly #offersExtended: boolean;
  readonly #hideUnknown: boolean;
  readonly #output = new ByteQueue();

  #reading: Reading = "client-flags";
  /** The field being read: `#have` of `#want` bytes are in `#field`, or were thrown away. */
  readonly #header = new Uint8Array(OPTION_HEADER_BYTES);
  #field: Uint8Array = this.#header;
  #have = 0;
  #want = CLIENT_FLAGS_BYTES;
  #option = 0;
  #options = 0;
  /** NBD_OPT_LIST in progress: the exports that were not sent yet. */
  #listing: Iterator<ExportSummary> | null = null;

  #shuttingDown = false;
  #fixedNewstyle = false;
  #noZeroes = false;
  #tls: boolean;
  #mode: ReplyMode = ReplyMode.Simple;
  readonly #contexts = new ContextSelection();

  #opening: Opening | null = null;
  #openingInfos: ReadonlySet<number> = new Set();
  #negotiated: Negotiated | null = null;

  constructor(options: ServerHandshakeOptions) {
    this.#directory = options.directory;
    this.#tlsMode = options.tlsMode;
    this.#tls = options.tlsFromStart ?? false;
    this.#offersExtended = options.extendedHeaders ?? true;
    this.#hideUnknown = options.hideUnknown ?? true;
    const at = this.#output.extend(GREETING_BYTES);
    const view = this.#output.view;
    view.setUint32(at, NBDMAGIC_HIGH);
    view.setUint32(at + 4, NBDMAGIC_LOW);
    view.setUint32(at + 8, IHAVEOPT_HIGH);
    view.setUint32(at + 12, IHAVEOPT_LOW);
    view.setUint16(at + 16, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
  }

  get state(): ServerHandshakeState {
    return this.#state;
  }

  /** One sentence: why the machine is `dead`; empty otherwise. */
  get reason(): string {
    return this.#reason;
  }

  /** In state `opening`: what the client wants. */
  get opening(): Opening | null {
    return this.#opening;
  }

  /** In state `transmission`: what was agreed on. */
  get negotiated(): Negotiated | null {
    return this.#negotiated;
  }

  get tls(): boolean {
    return this.#tls;
  }

  /** Bytes waiting to be sent. */
  get outputLength(): number {
    return this.#output.length;
  }

  /** Moves up to `room` bytes of output to `target` at `at`; returns how many. */
  drainOutput(target: Uint8Array, at: number, room: number): number {
    const moved = this.#output.moveTo(target, at, room);
    this.#continueListing();
    return moved;
  }

  /** All output, as bytes of its own. */
  takeOutput(): Uint8Array {
    const bytes = new Uint8Array(this.#output.length);
    this.drainOutput(bytes, 0, bytes.length);
    return bytes;
  }

  /**
   * Takes bytes `start … end − 1` from the client and returns how many it took. It takes fewer when its
   * state has become the owner's turn, or while OUTPUT_BYTES_HIGH is exceeded: send output, then offer the
   * rest again.
   */
  feed(bytes: Uint8Array, start = 0, end: number = bytes.length): number {
    let at = start;
    while (at < end && this.#takesInput()) at += this.#take(bytes, at, end);
    if (at < end && this.#state === "starttls") this.#die("the client sent plaintext behind STARTTLS");
    return at - start;
  }

  /** In state `starttls`, when the TLS handshake has succeeded. Forgets everything that was negotiated. */
  tlsEstablished(): void {
    check(this.#state === "starttls", "tlsEstablished answers the state starttls");
    this.#tls = true;
    this.#mode = ReplyMode.Simple;
    this.#contexts.forget();
    this.#enter("haggling");
    this.#read("option-header", OPTION_HEADER_BYTES);
  }

  /**
   * In state `opening`, when the export is open. `info` is what is told to the client; it may be newer than
   * `opening.info`.
   */
  opened(info: ExportInfo): void {
    check(this.#state === "opening" && this.#opening !== null, "opened answers the state opening");
    checkExportInfo(info);
    const exportName = this.#opening.exportName;
    const blockSizeNegotiated = this.#option === NBD_OPT_GO && this.#openingInfos.has(NBD_INFO_BLOCK_SIZE);
    const flags = this.#flagsOf(info, exportName);
    if (this.#option === NBD_OPT_EXPORT_NAME) this.#putExportName(info.size, flags);
    else this.#putInfos(info, flags, this.#openingInfos);
    this.#negotiated = {
      exportName,
      size: info.size,
      flags,
      mode: this.#mode,
      contexts: this.#contexts.of(exportName),
      blockSizeNegotiated,
      blockSizes: info.blockSizes,
      noZeroes: this.#noZeroes,
      tls: this.#tls,
    };
    this.#opening = null;
    this.#enter("transmission");
  }

  /**
   * In state `opening`, when the export cannot be had. After GO the client is told `type` (NBD_REP_ERR_…)
   * with one sentence and may try another option; after EXPORT_NAME the machine is `dead`.
   */
  refused(type: number, text: string): void {
    check(this.#state === "opening", "refused answers the state opening");
    check(type > NBD_REP_FLAG_ERROR, "an export is refused with NBD_REP_ERR_…");
    this.#opening = null;
    if (this.#option === NBD_OPT_EXPORT_NAME) {
      this.#die(text);
      return;
    }
    this.#enter("haggling");
    this.#fail(type, text);
    this.#read("option-header", OPTION_HEADER_BYTES);
  }

  /** From now on every option but ABORT is answered with NBD_REP_ERR_SHUTDOWN. */
  shutDown(): void {
    this.#shuttingDown = true;
  }

  /** Ends the machine for a reason of the owner's: a deadline, a failed TLS handshake. */
  kill(reason: string): void {
    if (this.#state !== "dead") this.#die(reason);
  }

  // ---- Reading ------------------------------------------------------------------------------------------

  #enter(state: ServerHandshakeState): void {
    check(NEXT[this.#state].includes(state), `no way from ${this.#state} to ${state}`);
    this.#state = state;
  }

  #die(reason: string): void {
    this.#enter("dead");
    this.#reason = reason;
    this.#listing = null;
    this.#field = this.#header;
  }

  #takesInput(): boolean {
    const reads = this.#state === "haggling" || this.#state === "greeting";
    return reads && this.#listing === null && this.#output.length <= OUTPUT_BYTES_HIGH;
  }

  #read(what: Reading, want: number): void {
    this.#reading = what;
    this.#have = 0;
    this.#want = want;
    this.#field = what === "option-data" ? new Uint8Array(want) : this.#header;
  }

  /** Takes what the current field still lacks, as far as it is there; returns the bytes taken. */
  #take(bytes: Uint8Array, at: number, end: number): number {
    const count = Math.min(end - at, this.#want - this.#have);
    if (this.#reading !== "skipped-data") this.#field.set(bytes.subarray(at, at + count), this.#have);
    this.#have += count;
    if (this.#have === this.#want) this.#fieldDone();
    return count;
  }

  #fieldDone(): void {
    switch (this.#reading) {
      case "client-flags":
        this.#clientFlags(new DataView(this.#header.buffer).getUint32(0));
        break;
      case "option-header":
        this.#optionHeader(new DataView(this.#header.buffer));
        break;
      case "option-data":
        this.#optionWhole(this.#field);
        break;
      case "skipped-data":
        this.#optionSkipped();
        break;
    }
  }

  #clientFlags(flags: number): void {
    if ((flags & ~(NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES)) !== 0) {
      this.#die(`the client set unknown flags: 0x${flags.toString(16)}`);
      return;
    }
    this.#fixedNewstyle = (flags & NBD_FLAG_C_FIXED_NEWSTYLE) !== 0;
    this.#noZeroes = (flags & NBD_FLAG_C_NO_ZEROES) !== 0;
    this.#enter("haggling");
    this.#read("option-header", OPTION_HEADER_BYTES);
  }

  #optionHeader(view: DataView): void {
    if (view.getUint32(0) !== IHAVEOPT_HIGH || view.getUint32(4) !== IHAVEOPT_LOW) {
      this.#die("an option does not begin with IHAVEOPT");
      return;
    }
    this.#option = view.getUint32(8);
    const length = view.getUint32(12);
    this.#options++;
    if (this.#options > OPTIONS_MAX) this.#die(`the client sent more than ${OPTIONS_MAX} options`);
    else if (length > OPTION_SKIP_BYTES_MAX) {
      this.#die(`${optionName(this.#option)} announces ${length} bytes of data`);
    } else if (length === 0) this.#optionWhole(NO_BYTES);
    else if (this.#keeps(length)) this.#read("option-data", length);
    else this.#read("skipped-data", length);
  }

  /** How the current option is treated; undefined when this server does not know it. */
  #rule(): OptionRule | undefined {
    if (this.#option === NBD_OPT_EXTENDED_HEADERS && !this.#offersExtended) return undefined;
    return ServerHandshake.#RULES.get(this.#option);
  }

  /** Whether the data of the current option will be looked at, `length` bytes of it. */
  #keeps(length: number): boolean {
    return length <= OPTION_DATA_BYTES_MAX && this.#rule()?.data === "kept" && !this.#barred();
  }

  // ---- Options ------------------------------------------------------------------------------------------

  /** The option has arrived with all data that will be looked at. */
  #optionWhole(data: Uint8Array): void {
    this.#read("option-header", OPTION_HEADER_BYTES);
    if (this.#barred()) {
      this.#bar();
      return;
    }
    const rule = this.#rule();
    if (rule === undefined) this.#fail(NBD_REP_ERR_UNSUP, "the option is unknown");
    else rule.run(this, data);
  }

  /** The option has arrived and its data was thrown away. */
  #optionSkipped(): void {
    const rule = this.#rule();
    if (rule === undefined || rule.data === "ignored" || this.#barred()) {
      this.#optionWhole(NO_BYTES);
      return;
    }
    this.#read("option-header", OPTION_HEADER_BYTES);
    if (rule.data === "none") this.#fail(NBD_REP_ERR_INVALID, "the option takes no data");
    else if (this.#option === NBD_OPT_EXPORT_NAME) this.#die("the export name is too long");
    else {
      // It would have replaced the contexts, even by failing.
      if (this.#option === NBD_OPT_SET_META_CONTEXT) this.#contexts.forget();
      this.#fail(NBD_REP_ERR_TOO_BIG, `the option has more than ${OPTION_DATA_BYTES_MAX} bytes of data`);
    }
  }

  /** Whether the current option is refused whatever its data says. */
  #barred(): boolean {
    const option = this.#option;
    if (option === NBD_OPT_ABORT) return false;
    if (!this.#fixedNewstyle && option !== NBD_OPT_EXPORT_NAME) return true;
    if (this.#needsTls() && option !== NBD_OPT_STARTTLS) return true;
    return this.#shuttingDown;
  }

  #bar(): void {
    const forName = this.#option === NBD_OPT_EXPORT_NAME;
    if (!this.#fixedNewstyle && !forName) {
      // Such a client is served without TLS or not at all (proto.md, "Server-side requirements").
      const startTls = this.#option === NBD_OPT_STARTTLS;
      const type = startTls ? NBD_REP_ERR_POLICY : NBD_REP_ERR_INVALID;
      this.#fail(type, "the client did not negotiate fixed newstyle");
    } else if (this.#needsTls() && this.#option !== NBD_OPT_STARTTLS) {
      if (forName) this.#die("the client asked for an export without TLS");
      else this.#fail(NBD_REP_ERR_TLS_REQD, "the server requires TLS");
    } else if (forName) this.#die("the server is shutting down");
    else this.#fail(NBD_REP_ERR_SHUTDOWN, "the server is shutting down");
  }

  #needsTls(): boolean {
    return this.#tlsMode === "forced" && !this.#tls;
  }

  #ack(): void {
    putOptionReply(this.#output, this.#option, NBD_REP_ACK);
  }

  #fail(type: number, text: string): void {
    putOptionReply(this.#output, this.#option, type, encodeErrorText(text));
  }

  #abort(): void {
    this.#ack();
    this.#enter("closed");
  }

  #list(): void {
    const exports = this.#directory.list();
    if (exports === null) {
      this.#fail(NBD_REP_ERR_POLICY, "listing exports is not allowed");
      return;
    }
    this.#listing = exports[Symbol.iterator]();
    this.#continueListing();
  }

  #continueListing(): void {
    while (this.#listing !== null && this.#output.length <= OUTPUT_BYTES_HIGH) {
      const next = this.#listing.next();
      if (next.done === true) {
        this.#listing = null;
        putOptionReply(this.#output, NBD_OPT_LIST, NBD_REP_ACK);
      } else if (this.#mayKnow(next.value)) {
        putServerReply(this.#output, NBD_OPT_LIST, next.value.name, next.value.description ?? "");
      }
    }
  }

  #mayKnow(summary: ExportSummary): boolean {
    return this.#tls || summary.tlsOnly !== true;
  }

  #startTls(): void {
    if (this.#tls) this.#fail(NBD_REP_ERR_INVALID, "TLS is in use already");
    else if (this.#tlsMode === "notls") this.#fail(NBD_REP_ERR_POLICY, "TLS is not configured");
    else {
      this.#ack();
      this.#enter("starttls");
    }
  }

  #structuredReply(): void {
    if (this.#mode === ReplyMode.Extended) {
      this.#fail(NBD_REP_ERR_EXT_HEADER_REQD, "extended headers are in use already");
    } else if (this.#mode === ReplyMode.Structured) {
      this.#fail(NBD_REP_ERR_INVALID, "structured replies are in use already");
    } else {
      this.#mode = ReplyMode.Structured;
      this.#ack();
    }
  }

  #extendedHeaders(): void {
    if (this.#mode === ReplyMode.Extended) {
      this.#fail(NBD_REP_ERR_INVALID, "extended headers are in use already");
    } else {
      this.#mode = ReplyMode.Extended;
      this.#ack();
    }
  }

  // ---- Export information -------------------------------------------------------------------------------

  #exportName(data: Uint8Array): void {
    const name = decodeString(data, 0, data.length);
    if (name === null) {
      this.#die("the export name is not a string of at most 4096 bytes of UTF-8");
      return;
    }
    if (this.#mode === ReplyMode.Extended) {
      this.#die("NBD_OPT_EXPORT_NAME is forbidden once extended headers were negotiated");
      return;
    }
    const info = this.#directory.find(name);
    if (info === undefined) this.#die(`there is no export ${quoted(name)}`);
    else if (!this.#mayKnow(info)) this.#die(`export ${quoted(name)} requires TLS`);
    else if (info.blockSizeRequired === true) this.#die(`export ${quoted(name)} requires NBD_OPT_GO`);
    else this.#startOpening(name, info, new Set());
  }

  #info(data: Uint8Array): void {
    const request = parseInfoRequest(data);
    if (request === null) {
      this.#fail(NBD_REP_ERR_INVALID, "the option's data is malformed");
      return;
    }
    const info = this.#findFor(request);
    if (info === undefined) return;
    if (this.#option === NBD_OPT_GO) this.#startOpening(request.name, info, request.infos);
    else this.#putInfos(info, this.#flagsOf(info, request.name), request.infos);
  }

  /** The export of an INFO or GO; undefined when the option has been answered with an error. */
  #findFor(request: InfoRequest): ExportInfo | undefined {
    const info = this.#directory.find(request.name);
    const selective = this.#tlsMode === "selective" && !this.#tls;
    if (info === undefined || !this.#mayKnow(info)) {
      if (selective && (info !== undefined || this.#hideUnknown)) {
        this.#fail(NBD_REP_ERR_TLS_REQD, `export ${quoted(request.name)} requires TLS or does not exist`);
      } else this.#fail(NBD_REP_ERR_UNKNOWN, `there is no export ${quoted(request.name)}`);
      return undefined;
    }
    if (info.blockSizeRequired === true && !request.infos.has(NBD_INFO_BLOCK_SIZE)) {
      putInfoBlockSize(this.#output, this.#option, info.blockSizes);
      this.#fail(NBD_REP_ERR_BLOCK_SIZE_REQD, "the client must ask for NBD_INFO_BLOCK_SIZE");
      return undefined;
    }
    return info;
  }

  #startOpening(exportName: string, info: ExportInfo, infos: ReadonlySet<number>): void {
    this.#opening = { exportName, info };
    this.#openingInfos = infos;
    this.#enter("opening");
  }

  /** NBD_REP_INFO replies and the ACK. */
  #putInfos(info: ExportInfo, flags: number, infos: ReadonlySet<number>): void {
    const out = this.#output;
    putInfoExport(out, this.#option, info.size, flags);
    if (infos.has(NBD_INFO_NAME)) putInfoText(out, this.#option, NBD_INFO_NAME, info.name);
    if (infos.has(NBD_INFO_DESCRIPTION) && info.description !== undefined && info.description !== "") {
      putInfoText(out, this.#option, NBD_INFO_DESCRIPTION, info.description);
    }
    if (infos.has(NBD_INFO_BLOCK_SIZE)) putInfoBlockSize(out, this.#option, info.blockSizes);
    this.#ack();
  }

  #putExportName(size: number, flags: number): void {
    const at = this.#output.extend(EXPORT_NAME_REPLY_BYTES);
    setU64(this.#output.view, at, size);
    this.#output.view.setUint16(at + 8, flags);
    if (!this.#noZeroes) this.#output.putZeroes(EXPORT_NAME_ZEROES_BYTES);
  }

  #flagsOf(info: ExportInfo, exportName: string): number {
    return flagsFor(info.flags, this.#mode, this.#contexts.of(exportName).length);
  }

  // ---- Metadata contexts --------------------------------------------------------------------------------

  #metaContext(data: Uint8Array): void {
    const listing = this.#option === NBD_OPT_LIST_META_CONTEXT;
    if (!listing) this.#contexts.forget();
    const request = parseContextRequest(data);
    if (this.#mode === ReplyMode.Simple) {
      this.#fail(NBD_REP_ERR_INVALID, "metadata contexts need structured replies");
    } else if (request === null) this.#fail(NBD_REP_ERR_INVALID, "the option's data is malformed");
    else {
      const info = this.#directory.find(request.name);
      // ERR_TLS_REQD is for INFO and GO only.
      if (info === undefined || !this.#mayKnow(info)) {
        this.#fail(NBD_REP_ERR_UNKNOWN, `there is no export ${quoted(request.name)}`);
      } else if (listing) this.#listContexts(info, request);
      else this.#setContexts(info, request);
    }
  }

  #listContexts(info: ExportInfo, request: ContextRequest): void {
    const all = request.queries.length === 0;
    const names = all ? info.contexts : matchContexts(this.#directory, info, request.queries, true);
    for (const name of names) putContextReply(this.#output, this.#option, 0, name);
    this.#ack();
  }

  #setContexts(info: ExportInfo, request: ContextRequest): void {
    const names = matchContexts(this.#directory, info, request.queries, false);
    if (names.size > CONTEXTS_MAX) {
      this.#fail(NBD_REP_ERR_TOO_BIG, `at most ${CONTEXTS_MAX} metadata contexts can be selected`);
      return;
    }
    for (const { id, name } of this.#contexts.select(request.name, names)) {
      putContextReply(this.#output, this.#option, id, name);
    }
    this.#ack();
  }
}
