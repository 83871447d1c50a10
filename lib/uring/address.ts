/** Addresses to listen on and connect to: names resolved, and texts for messages. */

import { lookup } from "node:dns/promises";
import { lstatSync } from "node:fs";
import { isIP, connect as netConnect } from "node:net";
import type { PeerAddress } from "../core/stream.js";
import type { SocketName } from "./addon.js";
import type { ListenAddress } from "./api.js";
import { errnoText } from "./errno.js";

/** The port argument that tells the addon that a host is the path of a unix socket. */
export const UNIX_SOCKET = -1;

/** Connections that wait to be accepted; the system may allow fewer. */
export const BACKLOG = 511;

/** Longest path of a unix socket in bytes (sockaddr_un). Node would cut a longer one without a word. */
export const UNIX_PATH_BYTES_MAX = 107;

/** A unix socket without a file: its name belongs to the network namespace, and goes with the last who listens. */
export function isAbstract(path: string): boolean {
  return path.startsWith("@");
}

/** "127.0.0.1:10809", "[::1]:10809", "unix:/run/x.sock", "descriptor 3" */
export function addressText(address: ListenAddress): string {
  switch (address.kind) {
    case "tcp":
      return address.host.includes(":")
        ? `[${address.host}]:${address.port}`
        : `${address.host}:${address.port}`;
    case "unix":
      return `unix:${address.path}`;
    case "fd":
      return `descriptor ${address.fd}`;
  }
}

/** Numeric addresses of a host, in the resolver's order; never empty. Rejects when it has none. */
export async function resolveHost(host: string): Promise<string[]> {
  if (isIP(host) !== 0) return [host];
  const found = await lookup(host, { all: true });
  return found.map((entry) => entry.address);
}

export function listenAddressOf(name: SocketName): ListenAddress {
  return name.family === "unix"
    ? { kind: "unix", path: name.path }
    : { kind: "tcp", host: name.host, port: name.port };
}

export function peerOf(name: SocketName | number): PeerAddress {
  // A peer that has gone by the time it is asked for has no name; the stream will say that it is dead.
  if (typeof name === "number") return { family: "tcp", host: "", port: 0 };
  return { family: name.family, host: name.host, port: name.port };
}

/** A socket file that nobody listens on: what a killed process leaves behind. */
export function isStale(path: string): Promise<boolean> {
  if (!lstatSync(path).isSocket()) return Promise.resolve(false);
  return new Promise((resolve) => {
    const probe = netConnect(path);
    probe.once("connect", () => {
      probe.destroy();
      resolve(false);
    });
    probe.once("error", (error: NodeJS.ErrnoException) => resolve(error.code === "ECONNREFUSED"));
  });
}

/** What went wrong with an address, for a message. */
export function refusalText(error: unknown): string {
  const { errno, message } = error as NodeJS.ErrnoException;
  return typeof errno === "number" && errno < 0 ? errnoText(errno) : message;
}
