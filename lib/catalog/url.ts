/**
 * Redis URLs.
 *
 *     redis://[user:password@]host[:port][/db]        rediss:// over TLS
 *     unix:///path/to.sock[?db=N]                     also redis+unix:// and redis-socket://
 *     redis-sentinel://[user:password@]host[:port],host[:port]…/master[/db]
 *     redis-cluster://[user:password@]host[:port],host[:port]…      rediss-cluster:// over TLS
 */
import { LaminaError } from "../core/errors.js";
import { SOCKET_PATH_BYTES_MAX } from "./socket-path.js";

export interface RedisHost {
  readonly host: string;
  readonly port: number;
}

interface Credentials {
  readonly username: string | null;
  readonly password: string | null;
}

export type RedisTarget = Credentials &
  (
    | { readonly kind: "tcp"; readonly at: RedisHost; readonly db: number; readonly tls: boolean }
    | { readonly kind: "unix"; readonly path: string; readonly db: number }
    | {
        readonly kind: "sentinel";
        readonly hosts: readonly RedisHost[];
        readonly master: string;
        readonly db: number;
      }
    | { readonly kind: "cluster"; readonly hosts: readonly RedisHost[]; readonly tls: boolean }
  );

const REDIS_PORT = 6379;
const SENTINEL_PORT = 26379;
const SCHEME = /^([a-z][a-z+-]*):\/\/(.*)$/s;

/** Throws REDIS_URL_INVALID with what is wrong; never with the password in it. */
export function parseRedisUrl(url: string): RedisTarget {
  const match = SCHEME.exec(url);
  if (match === null) throw invalid("it has no scheme");
  const [, scheme, rest] = match as unknown as [string, string, string];
  switch (scheme) {
    case "redis":
    case "rediss":
      return tcp(rest, scheme === "rediss");
    case "unix":
    case "redis+unix":
    case "redis-socket":
      return unix(rest);
    case "redis-sentinel":
      return sentinel(rest);
    case "redis-cluster":
    case "rediss-cluster":
      return cluster(rest, scheme === "rediss-cluster");
    default:
      throw invalid(`its scheme '${scheme}' is not known`);
  }
}

/** The target without secrets, for logs and `status`. */
export function describeTarget(target: RedisTarget): string {
  const hosts = (list: readonly RedisHost[]): string => list.map((at) => `${at.host}:${at.port}`).join(",");
  switch (target.kind) {
    case "tcp":
      return `${target.tls ? "rediss" : "redis"}://${hosts([target.at])}/${target.db}`;
    case "unix":
      return `unix://${target.path}`;
    case "sentinel":
      return `redis-sentinel://${hosts(target.hosts)}/${target.master}/${target.db}`;
    case "cluster":
      return `${target.tls ? "rediss" : "redis"}-cluster://${hosts(target.hosts)}`;
  }
}

function tcp(rest: string, tls: boolean): RedisTarget {
  const { credentials, authority, path } = split(rest);
  const hosts = parseHosts(authority, REDIS_PORT);
  if (hosts.length !== 1) throw invalid("it names several hosts; use redis-sentinel:// or redis-cluster://");
  return { kind: "tcp", at: hosts[0]!, db: database(path), tls, ...credentials };
}

function unix(rest: string): RedisTarget {
  const at = rest.lastIndexOf("@/");
  const credentials = parseCredentials(at < 0 ? "" : rest.slice(0, at));
  const [path = "", query = ""] = rest.slice(at < 0 ? 0 : at + 1).split("?", 2);
  if (!path.startsWith("/")) throw invalid("the path of its socket is not absolute");
  const db = new URLSearchParams(query).get("db") ?? "";
  if (Buffer.byteLength(decode(path)) > SOCKET_PATH_BYTES_MAX) {
    throw invalid(`its socket path is longer than ${SOCKET_PATH_BYTES_MAX} bytes`);
  }
  return { kind: "unix", path: decode(path), db: database(db), ...credentials };
}

function sentinel(rest: string): RedisTarget {
  const { credentials, authority, path } = split(rest);
  const [master = "", db = ""] = path.split("/", 2);
  if (master === "") throw invalid("it does not name the master group: redis-sentinel://host,host/NAME");
  const hosts = parseHosts(authority, SENTINEL_PORT);
  return { kind: "sentinel", hosts, master: decode(master), db: database(db), ...credentials };
}

function cluster(rest: string, tls: boolean): RedisTarget {
  const { credentials, authority, path } = split(rest);
  if (path !== "" && path !== "0") throw invalid("a Redis Cluster has only database 0");
  return { kind: "cluster", hosts: parseHosts(authority, REDIS_PORT), tls, ...credentials };
}

function split(rest: string): { credentials: Credentials; authority: string; path: string } {
  if (rest.includes("?") || rest.includes("#")) throw invalid("it has options, none are known");
  const slash = rest.indexOf("/", rest.lastIndexOf("@") + 1);
  const whole = slash < 0 ? rest : rest.slice(0, slash);
  const path = slash < 0 ? "" : rest.slice(slash + 1);
  const at = whole.lastIndexOf("@");
  return {
    credentials: parseCredentials(at < 0 ? "" : whole.slice(0, at)),
    authority: whole.slice(at + 1),
    path,
  };
}

function parseCredentials(text: string): Credentials {
  if (text === "") return { username: null, password: null };
  const colon = text.indexOf(":");
  const user = decode(colon < 0 ? text : text.slice(0, colon));
  return {
    username: user === "" ? null : user,
    password: colon < 0 ? null : decode(text.slice(colon + 1)),
  };
}

function parseHosts(authority: string, defaultPort: number): RedisHost[] {
  return authority.split(",").map((part) => {
    const match = /^(\[[0-9A-Fa-f:.%]+\]|[^:[\]/\s]+)(?::(\d{1,5}))?$/.exec(part);
    if (match === null) throw invalid(part === "" ? "it names no host" : `'${part}' is not host:port`);
    const port = match[2] === undefined ? defaultPort : Number(match[2]);
    if (port < 1 || port > 65_535) throw invalid(`${port} is not a port`);
    const host = match[1]!;
    return { host: host.startsWith("[") ? host.slice(1, -1) : host, port };
  });
}

function database(text: string): number {
  if (!/^\d{0,5}$/.test(text)) throw invalid(`'${text}' is not a database number`);
  return Number(text);
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw invalid("it has a bad %-escape");
  }
}

function invalid(what: string): LaminaError {
  return new LaminaError("REDIS_URL_INVALID", { what });
}
