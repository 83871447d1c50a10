/**
 * Unix sockets of a data directory, whatever the length of its path. The kernel takes 107 bytes; a longer
 * path is reached through a descriptor of the directory, /proc/self/fd/N/name, which is always short.
 */
import { closeSync, openSync } from "node:fs";
import { join, resolve } from "node:path";

/** Bytes of the longest path of a unix socket: sun_path without its terminator. */
export const SOCKET_PATH_BYTES_MAX = 107;

export interface SocketPath {
  /** What bind and connect are given. Means the same file as `real` until `release`. */
  readonly short: string;
  readonly real: string;
  /** Gives back the descriptor, if one was needed. Only once nothing binds or connects any more. */
  release(): void;
}

export function socketPath(directory: string, name: string): SocketPath {
  const real = join(resolve(directory), name);
  if (Buffer.byteLength(real) <= SOCKET_PATH_BYTES_MAX) return { short: real, real, release() {} };
  const fd = openSync(directory, "r");
  let open = true;
  return {
    short: `/proc/self/fd/${fd}/${name}`,
    real,
    release() {
      if (open) closeSync(fd);
      open = false;
    },
  };
}
