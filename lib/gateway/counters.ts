/**
 * What the gateway counts, in typed arrays: counting costs no allocation and no lock, and a scrape reads the
 * numbers as they are.
 */

/** Rows of the arrays: the NBD command number, and the last one for everything that is no command. */
export const COUNTED_TYPES = 9;
/** Latency buckets: bucket i counts requests of less than 2^i microseconds; the last one takes the rest. */
export const LATENCY_BUCKETS = 28;

/** Numbers of the arrays of one Counters. */
export const COUNTER_NUMBERS: number = COUNTED_TYPES * (4 + LATENCY_BUCKETS);

export class Counters {
  readonly #numbers: Float64Array;
  /** Answered requests, and those of them answered with an error, by type. */
  readonly requests: Float64Array;
  readonly errors: Float64Array;
  /** Bytes of the ranges of answered requests without error, by type. */
  readonly bytes: Float64Array;
  /** Sum of latencies in microseconds, by type. */
  readonly latencySum: Float64Array;
  /** COUNTED_TYPES rows of LATENCY_BUCKETS: from the receive that brought the request to its reply's send. */
  readonly latency: Float64Array;

  connectionsAccepted = 0;
  /** Of these, those that are over. */
  connectionsOver = 0;
  /** Closed at once, because a limit was reached. */
  connectionsRefused = 0;
  handshakesTimedOut = 0;
  /** Handshakes that were cut for a newcomer because there were too many. */
  handshakesDisplaced = 0;
  /** Connections that lost their right to their volume while they were open. */
  rightsWithdrawn = 0;
  /** Ended by us because the peer broke the protocol. */
  protocolErrors = 0;
  /** Refused by validation: out of range, read-only, unknown. */
  invalidRequests = 0;
  sends = 0;
  receives = 0;
  /** Times a socket was left unread, by cause. */
  stalledForMemory = 0;
  stalledForRequests = 0;
  /** Replies that were begun before all of their bytes were read, for want of memory. */
  streamedReplies = 0;
  /** Connections that were cut because such a reply then failed. */
  streamedFailures = 0;
  /** Older connections that were ended for a new one of their volume because their peer had gone. */
  supersededConnections = 0;
  /** Connections that went on although work of such older ones still waits in the volume. */
  admissionsForced = 0;

  /** `numbers`: COUNTER_NUMBERS of them, for instance where another thread reads them. */
  constructor(numbers: Float64Array = new Float64Array(COUNTER_NUMBERS)) {
    this.#numbers = numbers;
    const row = (i: number): Float64Array => numbers.subarray(i * COUNTED_TYPES, (i + 1) * COUNTED_TYPES);
    this.requests = row(0);
    this.errors = row(1);
    this.bytes = row(2);
    this.latencySum = row(3);
    this.latency = numbers.subarray(4 * COUNTED_TYPES, COUNTER_NUMBERS);
  }

  /** Adds the COUNTER_NUMBERS numbers of another one. */
  add(numbers: Float64Array): void {
    for (let i = 0; i < COUNTER_NUMBERS; i++) this.#numbers[i]! += numbers[i]!;
  }

  answered(type: number, status: number, bytes: number, microseconds: number): void {
    const row = type < COUNTED_TYPES ? type : COUNTED_TYPES - 1;
    this.requests[row]!++;
    if (status !== 0) this.errors[row]!++;
    else this.bytes[row]! += bytes;
    this.latencySum[row]! += microseconds;
    const bucket = microseconds < 1 ? 0 : 32 - Math.clz32(microseconds);
    this.latency[row * LATENCY_BUCKETS + Math.min(bucket, LATENCY_BUCKETS - 1)]!++;
  }
}

/** Names of the counters that are plain numbers. */
export type PlainCounter = {
  [Name in keyof Counters]: Counters[Name] extends number ? Name : never;
}[keyof Counters];
export const PLAIN_COUNTERS: readonly PlainCounter[] = Object.entries(new Counters())
  .filter(([, value]) => typeof value === "number")
  .map(([name]) => name as PlainCounter);
