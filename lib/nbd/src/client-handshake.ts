/**
 * The client's side of the handshake, without I/O. It negotiates as much of what it was asked for as the
 * server offers, in the order that keeps it safe:
 *
 *   STARTTLS, EXTENDED_HEADERS, STRUCTURED_REPLY (unless extended), SET_META_CONTEXT, then GO,
 *   or EXPORT_NAME where the server does not know GO; or LIST or INFO, and ABORT.
 *
 *   greeting ──► option ──► transmission      `negotiated` is there; requests may follow
 *                │  ▲  ├──► closed            send the output, then close; `reason` is empty if all went well
 *                ▼  │  └──► dead              the server broke a rule: drop the connection
 *              starttls                       send the output, start TLS, call `tlsEstablished`
 *
 * Invariants
 *  1. Fed one byte at a time or all at once: the same states, the same output.
 *  2. One option at a time: the next is sent after the final reply to the last.
 *  3. With tls "require" no option but STARTTLS is ever sent in plaintext, and plaintext bytes behind the
 *     server's ACK are `dead`, not believed.
 *  4. No length of the server's is believed above OPTION_REPLY_BYTES_MAX, no list above EXPORTS_LISTED_MAX.
 */
import { ByteQueue } from "./byte-queue.js";
import {
  EXPORT_NAME_REPLY_BYTES,
  EXPORT_NAME_ZEROES_BYTES,
  GREETING_BYTES,
  IHAVEOPT_HIGH,
  IHAVEOPT_LOW,
  NBD_DEFAULT_MAXIMUM_PAYLOAD,
  NBD_DEFAULT_MINIMUM_BLOCK,
  NBD_DEFAULT_PREFERRED_BLOCK,
  NBD_FLAG_C_FIXED_NEWSTYLE,
  NBD_FLAG_C_NO_ZEROES,
  NBD_FLAG_FIXED_NEWSTYLE,
  NBD_FLAG_NO_ZEROES,
  NBD_INFO_BLOCK_SIZE,
  NBD_INFO_DESCRIPTION,
  NBD_INFO_EXPORT,
  NBD_INFO_NAME,
  NBD_MAX_MINIMUM_BLOCK,
  NBD_MAX_STRING,
  NBD_MIN_PREFERRED_BLOCK,
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
  NBD_REP_ERR_SHUTDOWN,
  NBD_REP_ERR_UNSUP,
  NBD_REP_FLAG_ERROR,
  NBD_REP_INFO,
  NBD_REP_MAGIC_HIGH,
  NBD_REP_MAGIC_LOW,
  NBD_REP_META_CONTEXT,
  NBD_REP_SERVER,
  NBD_UNLIMITED_PAYLOAD,
  NBDMAGIC_HIGH,
  NBDMAGIC_LOW,
  OPTION_REPLY_HEADER_BYTES,
} from "./constants.js";
import type { BlockSizes, Negotiated, SelectedContext } from "./export.js";
import { optionName, optionReplyName } from "./names.js";
import {
  encodeContextRequest,
  encodeInfoRequest,
  type ListedExport,
  parseContextReply,
  parseInfoReply,
  parseServerReply,
  putOption,
} from "./options.js";
import { ReplyMode } from "./reply.js";
import { decodeDisplayText, encodeText, isProtocolString, NO_BYTES, quoted } from "./text.js";
import { check, getU64, isPowerOfTwo, SIZE_BYTES_MAX } from "./wire.js";

/** Longest data of one reply to an option: a name, a description and their lengths. */
export const OPTION_REPLY_BYTES_MAX = 4 + 2 * NBD_MAX_STRING;
/** Exports of one listing that are kept. A server with more is not listed. */
export const EXPORTS_LISTED_MAX = 65536;

export type ClientTls = "off" | "allow" | "require";

/** go: use the export. info: ask about it and leave. list: ask for all exports and leave. */
export type ClientGoal = "go" | "info" | "list";

export interface ClientHandshakeOptions {
  /** Empty: the server's default export. */
  readonly exportName?: string;
  readonly goal?: ClientGoal;
  /** allow: use TLS if the server has it, which anyone on the way can prevent; default "off". */
  readonly tls?: ClientTls;
  /** The connection is encrypted already. */
  readonly tlsFromStart?: boolean;
  /** Ask for extended headers; default true. */
  readonly extendedHeaders?: boolean;
  /** Ask for structured replies; default true. Metadata contexts need them. */
  readonly structuredReplies?: boolean;
  /** Metadata contexts to select; default none. */
  readonly contexts?: readonly string[];
  /** Ask for the block sizes and so promise to keep to them; default true. */
  readonly blockSizes?: boolean;
  /** Use EXPORT_NAME instead of GO, as old clients do. */
  readonly oldExportName?: boolean;
  /** Take the server's offer to leave out 124 zero bytes; default true. */
  readonly noZeroes?: boolean;
}

export type ClientHandshakeState = "greeting" | "option" | "starttls" | "transmission" | "closed" | "dead";

const NEXT: Readonly<Record<ClientHandshakeState, readonly ClientHandshakeState[]>> = {
  greeting: ["option", "closed", "dead"],
  option: ["starttls", "transmission", "closed", "dead"],
  starttls: ["option", "dead"],
  transmission: ["dead"],
  closed: ["dead"],
  dead: [],
};

/** The options that are sent, in this order; each decides whether it is wanted. */
type Step = "starttls" | "extended" | "structured" | "contexts" | "goal";
const STEPS: readonly Step[] = ["starttls", "extended", "structured", "contexts", "goal"];

type Reading = "greeting" | "reply-header" | "reply-data" | "export-name";

const DEFAULT_BLOCK_SIZES: BlockSizes = {
  minimum: NBD_DEFAULT_MINIMUM_BLOCK,
  preferred: NBD_DEFAULT_PREFERRED_BLOCK,
  maximumPayload: NBD_DEFAULT_MAXIMUM_PAYLOAD,
};

export class ClientHandshake {
  readonly #wants: Required<ClientHandshakeOptions>;
  #state: ClientHandshakeState = "greeting";
  #reason = "";
  readonly #output = new ByteQueue();

  #reading: Reading = "greeting";
  #field: Uint8Array = new Uint8Array(GREETING_BYTES);
  #have = 0;
  #replyType = 0;

  #step = 0;
  #option = 0;
  #fixedNewstyle = false;
  #noZeroes = false;
  #tls: boolean;
  #mode: ReplyMode = ReplyMode.Simple;
  #contexts: SelectedContext[] = [];
  #size = -1;
  #flags = 0;
  #blockSizes: BlockSizes | null = null;
  #canonicalName = "";
  #description = "";
  readonly #exports: ListedExport[] = [];
  #negotiated: Negotiated | null = null;

  constructor(options: ClientHandshakeOptions = {}) {
    this.#wants = {
      exportName: "",
      goal: "go",
      tls: "off",
      tlsFromStart: false,
      extendedHeaders: true,
      structuredReplies: true,
      contexts: [],
      blockSizes: true,
      oldExportName: false,
      noZeroes: true,
      ...options,
    };
    check(isProtocolString(this.#wants.exportName), "an export name is at most 4096 bytes without NUL");
    this.#tls = this.#wants.tlsFromStart;
  }

  get state(): ClientHandshakeState {
    return this.#state;
  }

  /** One sentence: what went wrong; empty when nothing did. */
  get reason(): string {
    return this.#reason;
  }

  /** In state `transmission`, and after a successful goal "info". */
  get negotiated(): Negotiated | null {
    return this.#negotiated;
  }

  /** The server's own name of the export, if it told. */
  get canonicalName(): string {
    return this.#canonicalName;
  }

  get description(): string {
    return this.#description;
  }

  /** After goal "list". */
  get exports(): readonly ListedExport[] {
    return this.#exports;
  }

  get outputLength(): number {
    return this.#output.length;
  }

  /** Moves up to `room` bytes of output to `target` at `at`; returns how many. */
  drainOutput(target: Uint8Array, at: number, room: number): number {
    return this.#output.moveTo(target, at, room);
  }

  /** All output, as bytes of its own. */
  takeOutput(): Uint8Array {
    const bytes = new Uint8Array(this.#output.length);
    this.#output.moveTo(bytes, 0, bytes.length);
    return bytes;
  }

  /** Takes bytes `start … end − 1` from the server; returns how many. The rest belongs to the next phase. */
  feed(bytes: Uint8Array, start = 0, end: number = bytes.length): number {
    let at = start;
    while (at < end && (this.#state === "greeting" || this.#state === "option")) {
      const count = Math.min(end - at, this.#field.length - this.#have);
      this.#field.set(bytes.subarray(at, at + count), this.#have);
      this.#have += count;
      at += count;
      if (this.#have === this.#field.length) this.#fieldDone(this.#field);
    }
    if (at < end && this.#state === "starttls") this.#die("the server sent plaintext behind STARTTLS");
    return at - start;
  }

  /** In state `starttls`, when the TLS handshake has succeeded. */
  tlsEstablished(): void {
    check(this.#state === "starttls", "tlsEstablished answers the state starttls");
    this.#tls = true;
    this.#enter("option");
    this.#nextStep();
  }

  kill(reason: string): void {
    if (this.#state !== "dead") this.#die(reason);
  }

  #enter(state: ClientHandshakeState): void {
    check(NEXT[this.#state].includes(state), `no way from ${this.#state} to ${state}`);
    this.#state = state;
  }

  #die(reason: string): void {
    this.#enter("dead");
    this.#reason = reason;
    this.#field = NO_BYTES;
  }

  /** Leaves politely. */
  #close(reason: string): void {
    if (this.#fixedNewstyle) putOption(this.#output, NBD_OPT_ABORT);
    this.#enter("closed");
    this.#reason = reason;
  }

  #read(what: Reading, want: number): void {
    this.#reading = what;
    this.#field = new Uint8Array(want);
    this.#have = 0;
  }

  #fieldDone(field: Uint8Array): void {
    const view = new DataView(field.buffer);
    switch (this.#reading) {
      case "greeting":
        this.#greeting(view);
        break;
      case "reply-header":
        this.#replyHeader(view);
        break;
      case "reply-data":
        this.#reply(field);
        break;
      case "export-name":
        this.#exportNameReply(view);
        break;
    }
  }

  // ---- Greeting -----------------------------------------------------------------------------------------

  #greeting(view: DataView): void {
    if (view.getUint32(0) !== NBDMAGIC_HIGH || view.getUint32(4) !== NBDMAGIC_LOW) {
      this.#die("this is no NBD server");
      return;
    }
    if (view.getUint32(8) !== IHAVEOPT_HIGH || view.getUint32(12) !== IHAVEOPT_LOW) {
      this.#die("the server speaks another protocol than newstyle NBD");
      return;
    }
    const flags = view.getUint16(16);
    this.#fixedNewstyle = (flags & NBD_FLAG_FIXED_NEWSTYLE) !== 0;
    this.#noZeroes = this.#wants.noZeroes && (flags & NBD_FLAG_NO_ZEROES) !== 0;
    const at = this.#output.extend(4);
    this.#output.view.setUint32(
      at,
      (this.#fixedNewstyle ? NBD_FLAG_C_FIXED_NEWSTYLE : 0) | (this.#noZeroes ? NBD_FLAG_C_NO_ZEROES : 0),
    );
    if (this.#fixedNewstyle) {
      this.#enter("option");
      this.#nextStep();
    } else if (this.#wants.tls === "require" || this.#wants.goal !== "go") {
      this.#close("the server knows no options, so neither TLS nor questions about exports");
    } else {
      this.#enter("option");
      this.#sendExportName();
    }
  }

  // ---- Options ------------------------------------------------------------------------------------------

  /** Sends the next option that is wanted. */
  #nextStep(): void {
    for (;;) {
      const step = STEPS[this.#step]!;
      this.#step++;
      if (this.#sendStep(step)) return;
    }
  }

  /** Whether an option was sent. */
  #sendStep(step: Step): boolean {
    const wants = this.#wants;
    switch (step) {
      case "starttls":
        return wants.tls !== "off" && !this.#tls && this.#send(NBD_OPT_STARTTLS);
      case "extended":
        return wants.extendedHeaders && !wants.oldExportName && this.#send(NBD_OPT_EXTENDED_HEADERS);
      case "structured":
        return (
          wants.structuredReplies && this.#mode !== ReplyMode.Extended && this.#send(NBD_OPT_STRUCTURED_REPLY)
        );
      case "contexts":
        return this.#sendContexts();
      case "goal":
        if (wants.goal === "list") return this.#send(NBD_OPT_LIST);
        if (wants.oldExportName && wants.goal === "go") return this.#sendExportName();
        return this.#sendInfo();
    }
  }

  #send(option: number, data?: Uint8Array): boolean {
    this.#option = option;
    putOption(this.#output, option, data);
    this.#read("reply-header", OPTION_REPLY_HEADER_BYTES);
    return true;
  }

  #sendContexts(): boolean {
    const { contexts, exportName, goal } = this.#wants;
    if (contexts.length === 0 || goal === "list" || this.#mode === ReplyMode.Simple) return false;
    const option = goal === "info" ? NBD_OPT_LIST_META_CONTEXT : NBD_OPT_SET_META_CONTEXT;
    return this.#send(option, encodeContextRequest(exportName, contexts));
  }

  #sendInfo(): boolean {
    const infos = [NBD_INFO_NAME, NBD_INFO_DESCRIPTION];
    if (this.#wants.blockSizes) infos.push(NBD_INFO_BLOCK_SIZE);
    const option = this.#wants.goal === "info" ? NBD_OPT_INFO : NBD_OPT_GO;
    return this.#send(option, encodeInfoRequest(this.#wants.exportName, infos));
  }

  #sendExportName(): boolean {
    this.#option = NBD_OPT_EXPORT_NAME;
    putOption(this.#output, NBD_OPT_EXPORT_NAME, encodeText(this.#wants.exportName));
    const zeroes = this.#noZeroes ? 0 : EXPORT_NAME_ZEROES_BYTES;
    this.#read("export-name", EXPORT_NAME_REPLY_BYTES + zeroes);
    return true;
  }

  // ---- Replies ------------------------------------------------------------------------------------------

  #replyHeader(view: DataView): void {
    if (view.getUint32(0) !== NBD_REP_MAGIC_HIGH || view.getUint32(4) !== NBD_REP_MAGIC_LOW) {
      this.#die("a reply does not begin with the magic of option replies");
      return;
    }
    const option = view.getUint32(8);
    const length = view.getUint32(16);
    this.#replyType = view.getUint32(12);
    if (option !== this.#option) {
      this.#die(`the server answers ${optionName(option)}, but ${optionName(this.#option)} was asked`);
    } else if (length > OPTION_REPLY_BYTES_MAX) {
      this.#die(`a reply to ${optionName(option)} announces ${length} bytes`);
    } else if (length === 0) this.#reply(NO_BYTES);
    else this.#read("reply-data", length);
  }

  /** A reply has arrived whole. */
  #reply(data: Uint8Array): void {
    const type = this.#replyType;
    if (type === NBD_REP_ACK) this.#acknowledged();
    else if (type >= NBD_REP_FLAG_ERROR) this.#refused(type, data);
    else if (this.#partOfReply(type, data)) this.#read("reply-header", OPTION_REPLY_HEADER_BYTES);
    else if (this.#state !== "dead") {
      this.#die(
        `${optionReplyName(type)} in reply to ${optionName(this.#option)} is malformed or out of place`,
      );
    }
  }

  /** A reply that is not the last; false when it is not legal here. */
  #partOfReply(type: number, data: Uint8Array): boolean {
    switch (this.#option) {
      case NBD_OPT_LIST:
        return type === NBD_REP_SERVER && this.#listed(data);
      case NBD_OPT_SET_META_CONTEXT:
      case NBD_OPT_LIST_META_CONTEXT: {
        const context = type === NBD_REP_META_CONTEXT ? parseContextReply(data) : null;
        if (context === null) return false;
        this.#contexts.push(context);
        return this.#contexts.length <= EXPORTS_LISTED_MAX;
      }
      case NBD_OPT_INFO:
      case NBD_OPT_GO:
        return type === NBD_REP_INFO && this.#informed(data);
      default:
        return false;
    }
  }

  #listed(data: Uint8Array): boolean {
    const listed = parseServerReply(data);
    if (listed === null) return false;
    this.#exports.push(listed);
    if (this.#exports.length > EXPORTS_LISTED_MAX) this.#die("the server lists too many exports");
    return this.#exports.length <= EXPORTS_LISTED_MAX;
  }

  #informed(data: Uint8Array): boolean {
    const reply = parseInfoReply(data);
    if (reply === null) return false;
    switch (reply.info) {
      case NBD_INFO_EXPORT:
        this.#size = reply.size;
        this.#flags = reply.flags;
        break;
      case NBD_INFO_NAME:
        this.#canonicalName = reply.text;
        break;
      case NBD_INFO_DESCRIPTION:
        this.#description = reply.text;
        break;
      case NBD_INFO_BLOCK_SIZE:
        // Improper sizes are ignored, as if none had been sent.
        if (areProper(reply.blockSizes)) this.#blockSizes = reply.blockSizes;
        break;
      case "unknown":
        break;
    }
    return true;
  }

  #acknowledged(): void {
    switch (this.#option) {
      case NBD_OPT_STARTTLS:
        this.#enter("starttls");
        return;
      case NBD_OPT_EXTENDED_HEADERS:
        this.#mode = ReplyMode.Extended;
        break;
      case NBD_OPT_STRUCTURED_REPLY:
        this.#mode = ReplyMode.Structured;
        break;
      case NBD_OPT_LIST:
        this.#close("");
        return;
      case NBD_OPT_INFO:
      case NBD_OPT_GO:
        this.#exportKnown();
        return;
      default:
        break;
    }
    this.#nextStep();
  }

  #refused(type: number, data: Uint8Array): void {
    const option = this.#option;
    const said = decodeDisplayText(data, 0, data.length);
    const text = `${optionName(option)}: ${optionReplyName(type)}${said === "" ? "" : `: ${said}`}`;
    const goal = option === NBD_OPT_GO || option === NBD_OPT_INFO || option === NBD_OPT_LIST;
    if (type === NBD_REP_ERR_SHUTDOWN) this.#close(text);
    else if (option === NBD_OPT_STARTTLS && this.#wants.tls === "require") this.#close(text);
    else if (option === NBD_OPT_GO && type === NBD_REP_ERR_UNSUP && this.#mode !== ReplyMode.Extended) {
      this.#forgetInfos();
      this.#sendExportName();
    } else if (goal) this.#close(text);
    else {
      this.#contexts = [];
      this.#nextStep();
    }
  }

  #forgetInfos(): void {
    this.#size = -1;
    this.#blockSizes = null;
  }

  #exportNameReply(view: DataView): void {
    this.#size = getU64(view, 0);
    this.#flags = view.getUint16(8);
    this.#exportKnown();
  }

  #exportKnown(): void {
    const { exportName, goal } = this.#wants;
    if (this.#size < 0) {
      this.#die(`${optionName(this.#option)} succeeded without NBD_INFO_EXPORT`);
      return;
    }
    if (this.#size > SIZE_BYTES_MAX) {
      // Behind GO there is no option any more with which to leave.
      this.#die(`export ${quoted(exportName)} is larger than 2^53 − 1 bytes`);
      return;
    }
    this.#negotiated = {
      exportName,
      size: this.#size,
      flags: this.#flags,
      mode: this.#mode,
      contexts: this.#contexts,
      blockSizeNegotiated: this.#blockSizes !== null,
      blockSizes: this.#blockSizes ?? DEFAULT_BLOCK_SIZES,
      noZeroes: this.#noZeroes,
      tls: this.#tls,
    };
    if (goal === "info") this.#close("");
    else this.#enter("transmission");
  }
}

/** Whether size constraints keep the rules of the specification. */
function areProper(sizes: BlockSizes): boolean {
  const { minimum, preferred, maximumPayload } = sizes;
  return (
    isPowerOfTwo(minimum) &&
    minimum <= NBD_MAX_MINIMUM_BLOCK &&
    isPowerOfTwo(preferred) &&
    preferred >= Math.max(minimum, NBD_MIN_PREFERRED_BLOCK) &&
    maximumPayload >= preferred &&
    (maximumPayload === NBD_UNLIMITED_PAYLOAD || maximumPayload % minimum === 0)
  );
}
