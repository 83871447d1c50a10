/**
 * What a server says about its exports, and what a handshake has agreed on.
 */
import {
  NBD_DEFAULT_MINIMUM_BLOCK,
  NBD_FLAG_BLOCK_STATUS_PAYLOAD,
  NBD_FLAG_HAS_FLAGS,
  NBD_FLAG_SEND_DF,
  NBD_FLAG_SEND_FAST_ZERO,
  NBD_FLAG_SEND_RESIZE,
  NBD_FLAG_SEND_WRITE_ZEROES,
  NBD_MAX_MINIMUM_BLOCK,
  NBD_MIN_DF_READ,
  NBD_MIN_PREFERRED_BLOCK,
  NBD_UNLIMITED_PAYLOAD,
} from "./constants.js";
import { ReplyMode } from "./reply.js";
import { isProtocolString } from "./text.js";
import { TransmissionRules } from "./validate.js";
import { check, isPowerOfTwo, SIZE_BYTES_MAX } from "./wire.js";

/** Size constraints of an export, in bytes (proto.md, "Size constraints"). */
export interface BlockSizes {
  /** Power of two, at most 65536. */
  readonly minimum: number;
  /** Power of two, at least 512 and at least `minimum`. */
  readonly preferred: number;
  /**
   * At least `preferred` and 65536 (which a read with DF must reach), and a multiple of `minimum` (libnbd
   * ignores the sizes otherwise); or 0xffffffff for no limit.
   */
  readonly maximumPayload: number;
}

/** One line of NBD_OPT_LIST. */
export interface ExportSummary {
  readonly name: string;
  readonly description?: string;
  /** Served over TLS only. */
  readonly tlsOnly?: boolean;
}

export interface ExportInfo extends ExportSummary {
  /** Canonical name; the client may have asked for another one, such as the empty default. */
  readonly name: string;
  /** Bytes, a multiple of the minimum block size. */
  readonly size: number;
  /**
   * NBD_FLAG_ bits of everything the export can do. Those that need something the client has not negotiated
   * (SEND_DF, BLOCK_STATUS_PAYLOAD) are left out for that client.
   */
  readonly flags: number;
  readonly blockSizes: BlockSizes;
  /** Refuse clients that do not ask for the block sizes. Keeps out nbd-client; leave it unset if at all possible. */
  readonly blockSizeRequired?: boolean;
  /** Names of the metadata contexts that can be selected, such as "base:allocation". */
  readonly contexts: readonly string[];
}

/**
 * The exports as one client may see them. Answers from memory, at once: no backend is touched by anything a
 * client can say before GO (CVE-2019-14850). Asked again for every option, so that it may take the client's
 * identity into account once TLS is up.
 */
export interface ExportDirectory {
  /** Every export that may be listed, or null where listing is forbidden. Pulled lazily. */
  list(): Iterable<ExportSummary> | null;
  /** The export of that name; "" asks for the default export. */
  find(name: string): ExportInfo | undefined;
  /**
   * Names of contexts of `info` that a query selects, for namespaces with a query language of their own.
   * Not asked about "base:". Without it a query selects the context that it names, and "NAMESPACE:" lists
   * all of that namespace.
   */
  matchContexts?(info: ExportInfo, query: ContextQuery): readonly string[];
}

export interface ContextQuery {
  readonly namespace: string;
  /** What stands behind the colon; empty is a wildcard when listing and selects nothing otherwise. */
  readonly leaf: string;
  /** NBD_OPT_LIST_META_CONTEXT rather than NBD_OPT_SET_META_CONTEXT. */
  readonly listing: boolean;
}

export interface SelectedContext {
  readonly id: number;
  readonly name: string;
}

/** What a handshake has agreed on; the same record for server and client. */
export interface Negotiated {
  /** The name that the client asked for, possibly empty. */
  readonly exportName: string;
  /** Bytes. */
  readonly size: number;
  /** Transmission flags as sent to the client. */
  readonly flags: number;
  /** Form of replies and requests. */
  readonly mode: ReplyMode;
  readonly contexts: readonly SelectedContext[];
  /** The client asked for the block sizes and got them, so it MUST keep to them. */
  readonly blockSizeNegotiated: boolean;
  readonly blockSizes: BlockSizes;
  readonly noZeroes: boolean;
  readonly tls: boolean;
}

/** Stops a program that would advertise what clients choke on. */
export function checkExportInfo(info: ExportInfo): void {
  const { minimum, preferred, maximumPayload } = info.blockSizes;
  check(isProtocolString(info.name), "an export name is at most 4096 bytes without NUL");
  check(isProtocolString(info.description ?? ""), "a description is at most 4096 bytes without NUL");
  check(Number.isSafeInteger(info.size) && info.size >= 0 && info.size <= SIZE_BYTES_MAX, "size below 2^53");
  check(isPowerOfTwo(minimum) && minimum <= NBD_MAX_MINIMUM_BLOCK, "minimum block is a power of 2 ≤ 65536");
  check(isPowerOfTwo(preferred), "preferred block is a power of 2");
  check(preferred >= Math.max(minimum, NBD_MIN_PREFERRED_BLOCK), "preferred block ≥ minimum and ≥ 512");
  check(maximumPayload >= Math.max(preferred, NBD_MIN_DF_READ), "maximum payload ≥ preferred and ≥ 65536");
  check(
    maximumPayload === NBD_UNLIMITED_PAYLOAD || (maximumPayload < 2 ** 32 && maximumPayload % minimum === 0),
    "maximum payload is a multiple of the minimum block below 2^32",
  );
  check(info.size % minimum === 0, "an export is a whole number of minimum blocks");
}

/** The transmission flags of an export as a client with this much negotiated may see them. */
export function flagsFor(flags: number, mode: ReplyMode, contextCount: number): number {
  let visible = (flags | NBD_FLAG_HAS_FLAGS) & ~NBD_FLAG_SEND_RESIZE;
  if (mode === ReplyMode.Simple) visible &= ~NBD_FLAG_SEND_DF;
  if ((visible & NBD_FLAG_SEND_WRITE_ZEROES) === 0) visible &= ~NBD_FLAG_SEND_FAST_ZERO;
  if (mode !== ReplyMode.Extended || contextCount === 0) visible &= ~NBD_FLAG_BLOCK_STATUS_PAYLOAD;
  return visible & 0xffff;
}

/**
 * What the requests of this session are held against. A client that negotiated block sizes must keep to the
 * minimum; any other may address single bytes, which is the default of the specification.
 */
export function rulesFor(negotiated: Negotiated): TransmissionRules {
  const { minimum, maximumPayload } = negotiated.blockSizes;
  const rules = new TransmissionRules();
  rules.size = negotiated.size;
  rules.flags = negotiated.flags;
  rules.mode = negotiated.mode;
  rules.minimumBlock = negotiated.blockSizeNegotiated ? minimum : NBD_DEFAULT_MINIMUM_BLOCK;
  rules.maximumPayload = maximumPayload;
  rules.maximumDf = maximumPayload;
  rules.contextCount = negotiated.contexts.length;
  return rules;
}
