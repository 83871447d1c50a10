/**
 * NBD URIs (doc/uri.md of the specification): nbd, nbds, nbd+unix, nbds+unix.
 *
 *     nbd://HOST:PORT/EXPORT        nbd+unix:///EXPORT?socket=PATH
 *
 * `parseNbdUri(formatNbdUri(uri))` gives `uri` back.
 */
import { NBD_DEFAULT_PORT } from "./constants.js";
import { isProtocolString } from "./text.js";

export interface NbdUri {
  /** nbds, nbds+unix: fail rather than go on without TLS. */
  readonly tls: boolean;
  readonly endpoint: NbdEndpoint;
  /** Empty: the default export. */
  readonly exportName: string;
  /** For authentication by TLS-PSK. */
  readonly username?: string;
  readonly tlsType?: "anon" | "x509" | "psk";
  /** Name to verify the certificate against instead of the host. */
  readonly tlsHostname?: string;
  /** Default true. */
  readonly tlsVerifyPeer?: boolean;
  /** libnbd's parameters: where the client's certificates or keys lie. */
  readonly tlsCertificates?: string;
  readonly tlsPskFile?: string;
}

export type NbdEndpoint =
  | { readonly kind: "tcp"; readonly host: string; readonly port: number }
  /** A path beginning with NUL names an abstract socket. */
  | { readonly kind: "unix"; readonly path: string };

/** A text that is no NBD URI. The message is one sentence with the cause. */
export class NbdUriError extends Error {
  override readonly name = "NbdUriError";
}

const SHAPE = /^([A-Za-z][A-Za-z0-9+.-]*):(?:\/\/([^/?#]*))?([^?#]*)(?:\?([^#]*))?$/;
const AUTHORITY = /^(?:([^@]*)@)?(\[[0-9A-Fa-f:.]+(?:%25[^\]]+)?\]|[^:@[\]]*)(?::(\d*))?$/;
const PORT_MAX = 65535;

type Writable<T> = { -readonly [K in keyof T]: T[K] };

/** Throws NbdUriError. */
export function parseNbdUri(text: string): NbdUri {
  const match = SHAPE.exec(text);
  if (match === null) throw new NbdUriError(`'${text}' is not a URI`);
  const scheme = match[1]!.toLowerCase();
  const tls = scheme === "nbds" || scheme === "nbds+unix";
  const unix = scheme === "nbd+unix" || scheme === "nbds+unix";
  if (!tls && !unix && scheme !== "nbd") {
    throw new NbdUriError(`'${scheme}' is not one of the schemes nbd, nbds, nbd+unix and nbds+unix`);
  }
  const params = parseQuery(match[4] ?? "");
  const authority = parseAuthority(match[2] ?? "");
  const uri: Writable<NbdUri> = {
    tls,
    endpoint: unix ? unixEndpoint(authority.host, params) : tcpEndpoint(authority, params),
    exportName: decode(match[3]!.replace(/^\//, ""), "the export name"),
  };
  if (!isProtocolString(uri.exportName)) {
    throw new NbdUriError("an export name has at most 4096 bytes and no NUL");
  }
  if (authority.username !== undefined) uri.username = authority.username;
  applyParams(uri, params);
  return uri;
}

/** The URI as text; the port is left out when it is the default. */
export function formatNbdUri(uri: NbdUri): string {
  const { endpoint } = uri;
  const params: string[] = [];
  const user = uri.username === undefined ? "" : `${encodeURIComponent(uri.username)}@`;
  let place = user;
  if (endpoint.kind === "unix") params.push(`socket=${encodePath(endpoint.path)}`);
  else {
    const host = endpoint.host.includes(":")
      ? `[${endpoint.host.replace("%", "%25")}]`
      : encodeURIComponent(endpoint.host);
    place += endpoint.port === NBD_DEFAULT_PORT ? host : `${host}:${endpoint.port}`;
  }
  if (uri.tlsType !== undefined) params.push(`tls-type=${uri.tlsType}`);
  if (uri.tlsHostname !== undefined) params.push(`tls-hostname=${encodeURIComponent(uri.tlsHostname)}`);
  if (uri.tlsVerifyPeer !== undefined) params.push(`tls-verify-peer=${uri.tlsVerifyPeer ? 1 : 0}`);
  if (uri.tlsCertificates !== undefined) params.push(`tls-certificates=${encodePath(uri.tlsCertificates)}`);
  if (uri.tlsPskFile !== undefined) params.push(`tls-psk-file=${encodePath(uri.tlsPskFile)}`);
  const scheme = `nbd${uri.tls ? "s" : ""}${endpoint.kind === "unix" ? "+unix" : ""}`;
  const query = params.length === 0 ? "" : `?${params.join("&")}`;
  return `${scheme}://${place}/${encodePath(uri.exportName)}${query}`;
}

interface Authority {
  readonly username: string | undefined;
  readonly host: string;
  readonly port: number;
}

function parseAuthority(text: string): Authority {
  const match = AUTHORITY.exec(text);
  if (match === null) throw new NbdUriError(`'${text}' is not a host with an optional port`);
  const [, user, host, digits] = match;
  const port = digits === undefined || digits === "" ? NBD_DEFAULT_PORT : Number(digits);
  if (port > PORT_MAX) throw new NbdUriError(`port ${digits} is not between 0 and ${PORT_MAX}`);
  const bare = host!.startsWith("[") ? host!.slice(1, -1) : host!;
  const username = user === undefined ? undefined : decode(user, "the user name");
  return { username, host: decode(bare, "the host"), port };
}

function tcpEndpoint(authority: Authority, params: ReadonlyMap<string, string>): NbdEndpoint {
  if (authority.host === "") throw new NbdUriError("the URI names no host");
  if (params.has("socket")) throw new NbdUriError("'socket' belongs to the schemes nbd+unix and nbds+unix");
  return { kind: "tcp", host: authority.host, port: authority.port };
}

function unixEndpoint(host: string, params: ReadonlyMap<string, string>): NbdEndpoint {
  if (host !== "") throw new NbdUriError(`a unix socket has no host, but the URI names '${host}'`);
  const path = params.get("socket") ?? "";
  if (path === "") throw new NbdUriError("the URI names no socket: add ?socket=PATH");
  return { kind: "unix", path };
}

function parseQuery(text: string): ReadonlyMap<string, string> {
  const params = new Map<string, string>();
  for (const part of text.split("&")) {
    if (part === "") continue;
    const equals = part.indexOf("=");
    const key = decode(equals < 0 ? part : part.slice(0, equals), "a parameter");
    if (params.has(key)) throw new NbdUriError(`parameter '${key}' is given twice`);
    params.set(key, equals < 0 ? "" : decode(part.slice(equals + 1), `parameter '${key}'`));
  }
  return params;
}

function applyParams(uri: Writable<NbdUri>, params: ReadonlyMap<string, string>): void {
  for (const [key, value] of params) {
    switch (key) {
      case "socket":
        break;
      case "tls-type":
        if (value !== "anon" && value !== "x509" && value !== "psk") {
          throw new NbdUriError(`tls-type '${value}' is not one of anon, x509 and psk`);
        }
        uri.tlsType = value;
        break;
      case "tls-hostname":
        uri.tlsHostname = value;
        break;
      case "tls-verify-peer":
        if (!/^(0|1|false|true)$/.test(value)) throw new NbdUriError("tls-verify-peer is 0 or 1");
        uri.tlsVerifyPeer = value === "1" || value === "true";
        break;
      case "tls-certificates":
        uri.tlsCertificates = value;
        break;
      case "tls-psk-file":
        uri.tlsPskFile = value;
        break;
      default:
        // Experimental parameters are anyone's; others are mistakes.
        if (!key.startsWith("x-")) throw new NbdUriError(`parameter '${key}' is unknown`);
    }
  }
}

function decode(text: string, what: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new NbdUriError(`${what} is not percent-encoded UTF-8`);
  }
}

/** Percent-encoding that leaves slashes readable. */
function encodePath(path: string): string {
  return encodeURIComponent(path).replaceAll("%2F", "/");
}
