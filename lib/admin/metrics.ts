/**
 * Prometheus metrics. Everything hot is counted elsewhere in plain numbers and typed arrays; here they are
 * read at the moment of a scrape. One registry per server, so that tests can run several.
 */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";
import type { AdminSources, GatewayNumbers, ThreadNumbers } from "./api.js";

const PREFIX = "lamina_";
/** The event loop's monitor is a timer of this period; a shorter one wakes an idle server for nothing. */
const LOOP_LAG_PRECISION_MS = 100;
/** Rows of the gateway's arrays. */
const TYPES = [
  "read",
  "write",
  "disconnect",
  "flush",
  "trim",
  "cache",
  "write_zeroes",
  "block_status",
  "other",
] as const;
const MICROSECONDS_PER_SECOND = 1_000_000;

export class Metrics {
  readonly #registry = new Registry();
  readonly #sources: AdminSources;

  constructor(sources: AdminSources) {
    this.#sources = sources;
    collectDefaultMetrics({
      register: this.#registry,
      prefix: PREFIX,
      eventLoopMonitoringPrecision: LOOP_LAG_PRECISION_MS,
    });
    this.#requests();
    this.#gateway();
    this.#store();
    this.#log();
    this.#volumes();
    this.#redis();
    this.#engine();
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  text(): Promise<string> {
    return this.#registry.metrics();
  }

  close(): void {
    this.#registry.clear();
  }

  #requests(): void {
    const rows = (name: string, help: string, of: (numbers: GatewayNumbers) => Float64Array): void => {
      this.#counter(name, help, ["type"], (set) => {
        const values = of(this.#sources.gateway());
        for (const [row, type] of TYPES.entries()) set({ type }, values[row] ?? 0);
      });
    };
    rows("requests_total", "NBD requests answered.", (numbers) => numbers.requests);
    rows("request_errors_total", "NBD requests answered with an error.", (numbers) => numbers.errors);
    rows(
      "request_bytes_total",
      "Bytes that NBD requests without error were about.",
      (numbers) => numbers.bytes,
    );
    const help = "Time from the arrival of an NBD request to its reply.";
    this.#registry.registerMetric(
      new LatencyHistogram(`${PREFIX}request_duration_seconds`, help, () => this.#sources.gateway()),
    );
  }

  #gateway(): void {
    const gateway = (): GatewayNumbers => this.#sources.gateway();
    this.#gauge("requests_in_flight", "NBD requests not yet answered.", () => gateway().requestsInFlight);
    this.#gauge("connections", "NBD connections.", () => gateway().connections);
    this.#gauge(
      "handshakes",
      "NBD connections that have not finished their handshake.",
      () => gateway().handshakes,
    );
    this.#threads();
    for (const name of Object.keys(gateway().counters)) {
      this.#counter(`gateway_${snake(name)}_total`, `Gateway: ${words(name)}.`, [], (set) => {
        set({}, gateway().counters[name] ?? 0);
      });
    }
  }

  #threads(): void {
    const { threads } = this.#sources;
    if (threads === undefined || threads.call(this.#sources).length === 0) return;
    const numbers = (): readonly ThreadNumbers[] => threads.call(this.#sources);
    new Gauge({
      name: `${PREFIX}thread_connections`,
      help: "NBD connections of a connection thread.",
      labelNames: ["thread"],
      registers: [this.#registry],
      collect() {
        for (const [thread, { connections }] of numbers().entries()) this.set({ thread }, connections);
      },
    });
    this.#counter("thread_requests_total", "NBD requests answered by a thread.", ["thread"], (set) => {
      for (const [thread, { requests }] of numbers().entries()) set({ thread: String(thread) }, requests);
    });
  }

  #store(): void {
    const stats = (): ReturnType<AdminSources["store"]["stats"]> => this.#sources.store.stats();
    this.#gauge("store_slot_bytes", "Bytes of one slot.", () => stats().slotBytes);
    const slots = new Gauge({
      name: `${PREFIX}store_slots`,
      help: "Slots of the device by state.",
      labelNames: ["state"],
      registers: [this.#registry],
      collect() {
        const { freeSlots, liveSlots, freeingSlots, hotSlots } = stats();
        this.set({ state: "free" }, freeSlots);
        this.set({ state: "live" }, liveSlots);
        this.set({ state: "freeing" }, freeingSlots);
        this.set({ state: "hot" }, hotSlots);
      },
    });
    slots.reset();
    this.#gauge("store_cache_bytes", "Bytes of cached entry tables.", () => stats().cacheBytes);
    this.#gauge("store_cache_limit_bytes", "Bound of cached entry tables.", () => stats().cacheLimitBytes);
    this.#gauge("store_waiting_writes", "Writes that wait for space.", () => stats().waitingForSpace);
    this.#gauge("store_lossy", "1 while the device is settled after a power loss.", () =>
      Number(stats().lossy),
    );
    this.#gauge("store_failed", "1 when the device has failed.", () => Number(stats().failed !== null));
    this.#gauge("store_scrub_running", "1 while a scrub runs.", () => Number(stats().scrub.running));
    this.#gauge(
      "store_scrub_last_end_seconds",
      "When the last scrub ended, in seconds since 1970; 0 when none has.",
      () => (this.#sources.scrub().lastEndedAt ?? 0) / 1000,
    );
    this.#total("store_scrub_passes_total", "Scrubs that were finished.", () => stats().scrub.passes);
    this.#total("store_cache_misses_total", "Entry tables read from the device.", () => stats().cacheMisses);
    this.#total("store_blocks_read_total", "Blocks read from the device.", () => stats().blocksRead);
    this.#total("store_blocks_written_total", "Blocks written to the device.", () => stats().blocksWritten);
    this.#total("store_zeroed_bytes_total", "Bytes zeroed or given back.", () => stats().bytesZeroed);
    this.#total("store_zero_calls_total", "Zeroing calls to the device.", () => stats().zeroCalls);
    this.#total(
      "store_bit_rot_blocks_total",
      "Blocks that failed their checksum.",
      () => stats().bitRotBlocks,
    );
    this.#total(
      "store_adopted_blocks_total",
      "Blocks taken over after a power loss.",
      () => stats().adoptedBlocks,
    );
  }

  #log(): void {
    const stats = (): ReturnType<AdminSources["store"]["stats"]> => this.#sources.store.stats();
    this.#gauge("log_bytes", "Bytes of the log ring.", () => stats().logBytes);
    this.#gauge("log_used_bytes", "Bytes of the log ring in use.", () => stats().logUsedBytes);
    this.#total("log_appends_total", "Appends to the log.", () => stats().logAppends);
    this.#total("log_appended_bytes_total", "Bytes appended to the log.", () => stats().logAppendedBytes);
    this.#total("syncs_total", "fdatasync calls.", () => stats().syncs);
    this.#total("checkpoints_total", "Entry tables written by checkpoints.", () => stats().checkpoints);
  }

  #volumes(): void {
    const { registry } = this.#sources;
    const each = (name: string, help: string, of: (id: number, size: number) => number): void => {
      new Gauge({
        name: PREFIX + name,
        help,
        labelNames: ["volume"],
        registers: [this.#registry],
        collect() {
          this.reset();
          for (const record of registry.list()) this.set({ volume: record.name }, of(record.id, record.size));
        },
      });
    };
    each("volume_size_bytes", "Size of a volume.", (_id, size) => size);
    each("volume_used_bytes", "Bytes of a volume's extents.", (id) => registry.usage(id).slotBytes);
    each("volume_connections", "Sessions that have a volume open.", (id) => registry.usage(id).connections);
    each("volume_bad_blocks", "Damaged blocks of a volume.", (id) => registry.usage(id).badBlocks);
  }

  #redis(): void {
    const mirror = (): ReturnType<AdminSources["mirrorNow"]> => this.#sources.mirrorNow();
    this.#gauge("redis_mirrored", "1 while the mirror in Redis is equal to the store.", () =>
      Number(mirror().state === "mirrored"),
    );
    this.#gauge("redis_pending_changes", "Changes that wait to be mirrored.", () => mirror().pending);
    this.#total("redis_rebuilds_total", "Volumes mirrored anew.", () => mirror().rebuilds);
    this.#total("redis_failures_total", "Redis connections lost or refused.", () => mirror().failures);
  }

  #engine(): void {
    const { engine, pool } = this.#sources;
    this.#gauge("pool_bytes", "Bytes of the buffer pool.", () => pool().capacityBytes);
    this.#gauge("pool_free_bytes", "Free bytes of the buffer pool.", () => pool().freeBytes);
    this.#total("engine_enters_total", "Kernel entries of the I/O engine.", () => engine().enters);
    this.#total("engine_submissions_total", "Operations given to the kernel.", () => engine().submissions);
    this.#total(
      "engine_completions_total",
      "Operations completed by the kernel.",
      () => engine().completions,
    );
    this.#total("engine_wakeups_total", "Wake-ups of the I/O engine.", () => engine().wakeups);
    this.#total("engine_received_bytes_total", "Bytes received from sockets.", () => engine().bytesReceived);
    this.#total("engine_sent_bytes_total", "Bytes sent to sockets.", () => engine().bytesSent);
  }

  #gauge(name: string, help: string, value: () => number): void {
    new Gauge({
      name: PREFIX + name,
      help,
      registers: [this.#registry],
      collect() {
        this.set(value());
      },
    });
  }

  #total(name: string, help: string, value: () => number): void {
    this.#counter(name, help, [], (set) => set({}, value()));
  }

  #counter(
    name: string,
    help: string,
    labelNames: readonly string[],
    collect: (set: (labels: Record<string, string>, value: number) => void) => void,
  ): void {
    new Counter({
      name: PREFIX + name,
      help,
      labelNames: [...labelNames],
      registers: [this.#registry],
      collect() {
        this.reset();
        collect((labels, value) => this.inc(labels, value));
      },
    });
  }
}

/** A histogram whose buckets are counted by the gateway: bucket i is "less than 2^i microseconds". */
class LatencyHistogram extends Histogram {
  readonly #name: string;
  readonly #help: string;
  readonly #numbers: () => GatewayNumbers;

  constructor(name: string, help: string, numbers: () => GatewayNumbers) {
    super({ name, help, labelNames: ["type"], registers: [] });
    this.#name = name;
    this.#help = help;
    this.#numbers = numbers;
  }

  /** What the text exposition asks for instead of `get`; missing in the library's types. */
  getForPromString(): ReturnType<Histogram["get"]> {
    return this.get();
  }

  override get(): ReturnType<Histogram["get"]> {
    const { latency, latencySum } = this.#numbers();
    const buckets = Math.floor(latency.length / TYPES.length);
    const values: Awaited<ReturnType<Histogram["get"]>>["values"] = [];
    TYPES.forEach((type, row) => {
      let count = 0;
      for (let i = 0; i < buckets; i++) {
        count += latency[row * buckets + i] ?? 0;
        const le = i === buckets - 1 ? "+Inf" : 2 ** i / MICROSECONDS_PER_SECOND;
        values.push({ metricName: `${this.#name}_bucket`, labels: { le, type }, value: count });
      }
      const sum = (latencySum[row] ?? 0) / MICROSECONDS_PER_SECOND;
      values.push({ metricName: `${this.#name}_sum`, labels: { type }, value: sum });
      values.push({ metricName: `${this.#name}_count`, labels: { type }, value: count });
    });
    type Answer = Awaited<ReturnType<Histogram["get"]>>;
    const answer = { name: this.#name, help: this.#help, type: "histogram", values, aggregator: "sum" };
    return Promise.resolve(answer as unknown as Answer);
  }
}

function snake(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

function words(name: string): string {
  return snake(name).replaceAll("_", " ");
}
