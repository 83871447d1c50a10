/** What `lamina serve` was asked for: command line over configuration file over defaults, all of it checked. */
import { readFileSync } from "node:fs";
import { isIP } from "node:net";
import { resolve } from "node:path";
import { z } from "zod";
import { parseRedisUrl, type RedisTarget } from "../../catalog/index.js";
import { LaminaError } from "../../core/errors.js";
import { MIB, PEER_SILENCE_MAX_MS, POOL_BYTES_MAX, POOL_BYTES_MIN, VOLUME_NAME } from "../../core/limits.js";
import { poolBytesDefault, poolBytesMin, THREADS_MAX } from "../../gateway/threads/arenas.js";
import type { TlsSettings } from "../../gateway/tls.js";
import type { EngineOptions, ListenAddress } from "../../uring/api.js";
import { parseBytes } from "../size.js";

export const DATA_DEFAULT = "./lamina-data";
export const LISTEN_DEFAULT = "127.0.0.1:10809";
export const ADMIN_DEFAULT = "127.0.0.1:10810";

/** The same names on the command line and in the configuration file. */
export const serveArguments = z.strictObject({
  data: z.string().optional(),
  capacity: z.string().optional(),
  device: z.string().optional(),
  listen: z.union([z.string(), z.array(z.string())]).optional(),
  admin: z.string().optional(),
  redis: z.string().optional(),
  "io-engine": z.enum(["auto", "ring", "threads"]).optional(),
  pool: z.string().optional(),
  threads: z.number().int().min(0).max(THREADS_MAX).optional(),
  "default-export": z.string().optional(),
  tls: z.enum(["off", "allow", "require"]).optional(),
  "tls-dir": z.string().optional(),
  insecure: z.boolean().optional(),
});

export type ServeArguments = z.infer<typeof serveArguments>;

export interface ServeOptions {
  /** Absolute. */
  readonly data: string;
  /** Bytes of a new store file; null for 80 % of what is free. */
  readonly capacity: number | null;
  /** Path of a device of its own; null for a file in the data directory. */
  readonly device: string | null;
  readonly listen: readonly ListenAddress[];
  readonly admin: { readonly host: string; readonly port: number };
  readonly redis: RedisTarget | "private" | "none";
  readonly engine: EngineOptions;
  /** Connection threads; 0: the owner of the volumes serves the connections too. */
  readonly threads: number;
  readonly defaultExport: string | null;
  /** Null for --tls off. */
  readonly tls: TlsSettings | null;
  /**
   * An address that other machines reach, where only those may come who are named: every volume needs an
   * access list. Null when there is none, or with --insecure.
   */
  readonly guardedAddress: string | null;
}

/** A listening socket that this process was started with, and where it is bound. */
export interface InheritedListener {
  readonly listen: ListenAddress;
  readonly bound: ListenAddress;
}

/** Throws LaminaError; nothing has been touched then. `inherited` is served on top of --listen, or alone. */
export function resolveServeOptions(
  given: ServeArguments,
  configPath: string | undefined,
  inherited: readonly InheritedListener[] = [],
): ServeOptions {
  const all: ServeArguments = { ...(configPath === undefined ? {} : readConfig(configPath)), ...given };
  if (all.device !== undefined && all.capacity !== undefined) {
    throw usage("--capacity is for a store file; a device is used whole");
  }
  const asked = [all.listen ?? (inherited.length > 0 ? [] : LISTEN_DEFAULT)].flat().map(parseListen);
  const admin = parseHostPort(all.admin ?? ADMIN_DEFAULT, "--admin");
  const tls = parseTls(all.tls, all["tls-dir"]);
  let guardedAddress: string | null = null;
  if (all.insecure !== true) {
    guardedAddress = exposedAddress([...asked, ...inherited.map(({ bound }) => bound)]);
    refuseOpen(guardedAddress, tls);
    if (!isLoopback(admin.host)) throw new LaminaError("ADMIN_INSECURE", { address: hostPort(admin) });
  }
  const name = all["default-export"];
  if (name !== undefined && !VOLUME_NAME.test(name)) throw new LaminaError("NAME_INVALID", { name });
  const threads = parseThreads(all.threads);
  return {
    data: resolve(all.data ?? DATA_DEFAULT),
    capacity: all.capacity === undefined ? null : parseBytes(all.capacity),
    device: all.device === undefined ? null : resolve(all.device),
    listen: [...asked, ...inherited.map(({ listen }) => listen)],
    admin,
    redis: all.redis === undefined ? "private" : all.redis === "none" ? "none" : parseRedisUrl(all.redis),
    engine: {
      kind: all["io-engine"] ?? "auto",
      poolBytes: parsePool(all.pool, threads),
      tcpUserTimeoutMs: PEER_SILENCE_MAX_MS,
    },
    threads,
    defaultExport: name ?? null,
    tls,
    guardedAddress,
  };
}

/** HOST:PORT, [v6]:PORT or unix:PATH. Throws USAGE. */
export function parseListen(text: string): ListenAddress {
  if (text.startsWith("unix:")) {
    const path = text.slice("unix:".length);
    if (path === "") throw usage("--listen unix: needs a path");
    return { kind: "unix", path: resolve(path) };
  }
  return { kind: "tcp", ...parseHostPort(text, "--listen") };
}

function parseHostPort(text: string, option: string): { host: string; port: number } {
  const match = /^(\[[0-9A-Fa-f:.%]+\]|[^:[\]\s]+):(\d{1,5})$/.exec(text);
  const port = Number(match?.[2] ?? Number.NaN);
  if (match === null || !(port <= 65_535)) {
    throw usage(`${option} '${text}' is not HOST:PORT${option === "--listen" ? " or unix:PATH" : ""}`);
  }
  return { host: match[1]!.replace(/^\[|\]$/g, ""), port };
}

const TLS_MODES = { allow: "selective", require: "forced" } as const;

function parseTls(mode: ServeArguments["tls"], directory: string | undefined): TlsSettings | null {
  if (mode === "off") return null;
  if (mode === undefined) {
    if (directory === undefined) return null;
    throw usage("--tls-dir is given, but neither --tls allow nor --tls require");
  }
  if (directory === undefined) throw usage(`--tls ${mode} needs --tls-dir, the directory of its keys`);
  return { mode: TLS_MODES[mode], directory: resolve(directory) };
}

/** The first address that other machines reach; null when there is none. */
function exposedAddress(addresses: readonly ListenAddress[]): string | null {
  for (const address of addresses) {
    if (address.kind === "tcp" && !isLoopback(address.host)) return hostPort(address);
  }
  return null;
}

/** Who can connect without TLS is nobody in particular, and sees everything: that is for this machine only. */
function refuseOpen(address: string | null, tls: TlsSettings | null): void {
  if (address !== null && tls?.mode !== "forced") throw new LaminaError("LISTEN_INSECURE", { address });
}

function hostPort({ host, port }: { readonly host: string; readonly port: number }): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

export function isLoopback(host: string): boolean {
  if (isIP(host) === 4) return host.startsWith("127.");
  return host === "localhost" || host === "::1" || host.toLowerCase().startsWith("::ffff:127.");
}

function parseThreads(threads = 0): number {
  if (Number.isInteger(threads) && threads >= 0 && threads <= THREADS_MAX) return threads;
  throw usage(`--threads ${threads} is not a number from 0 to ${THREADS_MAX}`);
}

function parsePool(text: string | undefined, threads: number): number {
  if (text === undefined) return poolBytesDefault(threads);
  const bytes = parseBytes(text);
  const least = poolBytesMin(threads);
  if (bytes < least) {
    throw usage(`--pool ${text} is too small for ${threads} connection threads, which need ${least / MIB}M`);
  }
  if (bytes % MIB !== 0 || bytes < POOL_BYTES_MIN || bytes > POOL_BYTES_MAX) {
    const most = Math.floor(POOL_BYTES_MAX / MIB);
    throw usage(`--pool ${text} is not a whole number of MiB from ${POOL_BYTES_MIN / MIB}M to ${most}M`);
  }
  return bytes;
}

function readConfig(path: string): ServeArguments {
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(path, "utf8"));
  } catch (error) {
    throw new LaminaError("CONFIG_INVALID", {
      path,
      what: error instanceof Error ? error.message : String(error),
    });
  }
  const result = serveArguments.safeParse(value);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const where = issue === undefined || issue.path.length === 0 ? "" : `'${issue.path.join(".")}': `;
  throw new LaminaError("CONFIG_INVALID", { path, what: `${where}${issue?.message ?? "not understood"}` });
}

function usage(what: string): LaminaError {
  return new LaminaError("USAGE", { what, help: "lamina serve --help" });
}
