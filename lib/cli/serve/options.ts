/** What `lamina serve` was asked for: command line over configuration file over defaults, all of it checked. */
import { readFileSync } from "node:fs";
import { isIP } from "node:net";
import { resolve } from "node:path";
import { z } from "zod";
import { parseRedisUrl, type RedisTarget } from "../../catalog/index.js";
import { LaminaError } from "../../core/errors.js";
import {
  MIB,
  PEER_SILENCE_MAX_MS,
  POOL_BYTES_DEFAULT,
  POOL_BYTES_MAX,
  POOL_BYTES_MIN,
  VOLUME_NAME,
} from "../../core/limits.js";
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
  "default-export": z.string().optional(),
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
  readonly defaultExport: string | null;
}

/** Throws LaminaError; nothing has been touched then. */
export function resolveServeOptions(given: ServeArguments, configPath: string | undefined): ServeOptions {
  const all: ServeArguments = { ...(configPath === undefined ? {} : readConfig(configPath)), ...given };
  if (all.device !== undefined && all.capacity !== undefined) {
    throw usage("--capacity is for a store file; a device is used whole");
  }
  const listen = [all.listen ?? LISTEN_DEFAULT].flat().map(parseListen);
  const admin = parseHostPort(all.admin ?? ADMIN_DEFAULT, "--admin");
  if (all.insecure !== true) {
    for (const address of listen) if (address.kind === "tcp") refuseOpen(address.host, address.port);
    refuseOpen(admin.host, admin.port);
  }
  const name = all["default-export"];
  if (name !== undefined && !VOLUME_NAME.test(name)) throw new LaminaError("NAME_INVALID", { name });
  return {
    data: resolve(all.data ?? DATA_DEFAULT),
    capacity: all.capacity === undefined ? null : parseBytes(all.capacity),
    device: all.device === undefined ? null : resolve(all.device),
    listen,
    admin,
    redis: all.redis === undefined ? "private" : all.redis === "none" ? "none" : parseRedisUrl(all.redis),
    engine: {
      kind: all["io-engine"] ?? "auto",
      poolBytes: parsePool(all.pool),
      tcpUserTimeoutMs: PEER_SILENCE_MAX_MS,
    },
    defaultExport: name ?? null,
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

/** Whoever can connect can read and write everything: that is for this machine only, unless asked for. */
function refuseOpen(host: string, port: number): void {
  if (isLoopback(host)) return;
  throw new LaminaError("LISTEN_INSECURE", {
    address: host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`,
  });
}

export function isLoopback(host: string): boolean {
  if (isIP(host) === 4) return host.startsWith("127.");
  return host === "localhost" || host === "::1" || host.toLowerCase().startsWith("::ffff:127.");
}

function parsePool(text: string | undefined): number {
  if (text === undefined) return POOL_BYTES_DEFAULT;
  const bytes = parseBytes(text);
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
