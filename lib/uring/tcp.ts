/** How the TCP sockets of both engines are set up. */
import {
  IPPROTO_TCP,
  SO_KEEPALIVE,
  SOL_SOCKET,
  TCP_KEEPCNT,
  TCP_KEEPIDLE,
  TCP_KEEPINTVL,
  TCP_NODELAY,
  TCP_USER_TIMEOUT,
} from "./abi.js";
import type { Addon } from "./addon.js";

/** Probes of an idle connection; the first is sent after half of the silence that is allowed. */
const PROBES = 3;

/** Seconds of silence before the first probe, and between probes: all of them fit into `silenceMaxMs`. */
export function probesWithin(silenceMaxMs: number): { idle: number; interval: number } {
  const seconds = silenceMaxMs / 1000;
  const idle = Math.max(1, Math.floor(seconds / 2));
  return { idle, interval: Math.max(1, Math.floor((seconds - idle) / PROBES)) };
}

/**
 * Replies must not wait for more data, and a peer that vanished without a word must be noticed: by what it does
 * not acknowledge (TCP_USER_TIMEOUT), and while nothing is sent to it by probes that it does not answer.
 */
export function tuneTcp(addon: Addon, fd: number, silenceMaxMs: number | undefined): void {
  addon.socketOption(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  addon.socketOption(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  if (silenceMaxMs === undefined) return;
  const { idle, interval } = probesWithin(silenceMaxMs);
  addon.socketOption(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, silenceMaxMs);
  addon.socketOption(fd, IPPROTO_TCP, TCP_KEEPIDLE, idle);
  addon.socketOption(fd, IPPROTO_TCP, TCP_KEEPINTVL, interval);
  addon.socketOption(fd, IPPROTO_TCP, TCP_KEEPCNT, PROBES);
}
