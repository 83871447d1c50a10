/** Listening and connecting on the ring. */
import { LaminaError } from "../core/errors.js";
import type { ByteStream } from "../core/stream.js";
import {
  Errno,
  IORING_ACCEPT_MULTISHOT,
  IORING_ASYNC_CANCEL_ALL,
  IORING_ASYNC_CANCEL_FD,
  IORING_CQE_F_MORE,
  IORING_OP_ACCEPT,
  IORING_OP_ASYNC_CANCEL,
  IORING_OP_CONNECT,
  SOCK_CLOEXEC,
  SQE_WORD,
} from "./abi.js";
import { addressText, peerOf, resolveHost, UNIX_SOCKET } from "./address.js";
import type { ListenAddress, Listener } from "./api.js";
import { errnoOf, errnoText } from "./errno.js";
import { type ListeningSocket, openListening, unlinkSocket } from "./listening.js";
import { RingStream, type StreamContext } from "./ring-stream.js";
import { tuneTcp } from "./tcp.js";

/** A process out of descriptors accepts again after this time; until then clients wait in the backlog. */
const ACCEPT_RETRY_MS = 100;
const IOPRIO_SHIFT = 16;
const TWO_32 = 2 ** 32;
/** sockaddr_un, the longest of those in use, rounded up. */
const SOCKADDR_BYTES = 128;

export interface NetContext extends StreamContext {
  readonly tcpUserTimeoutMs: number | undefined;
}

type OnDescriptor = (fd: number) => void;

/** Gives connected descriptors, each the receiver's own, for `ringAdopt` of this engine or another thread's. */
export async function ringListen(
  context: NetContext,
  wanted: ListenAddress,
  onDescriptor: OnDescriptor,
): Promise<Listener> {
  return new RingListener(context, await openListening(wanted), onDescriptor);
}

/** A stream over a connected socket, whose descriptor is closed with it. */
export function ringAdopt(context: NetContext, fd: number): ByteStream {
  const peer = peerOf(context.addon.socketPeer(fd));
  if (peer.family === "tcp") tuneTcp(context.addon, fd, context.tcpUserTimeoutMs);
  return new RingStream(context, fd, peer);
}

class RingListener implements Listener {
  readonly #context: NetContext;
  readonly #socket: ListeningSocket;
  readonly #onDescriptor: OnDescriptor;
  #accepting = false;
  #retry: NodeJS.Timeout | null = null;
  #onClosed: (() => void) | null = null;

  constructor(context: NetContext, socket: ListeningSocket, onDescriptor: OnDescriptor) {
    this.#context = context;
    this.#socket = socket;
    this.#onDescriptor = onDescriptor;
    context.loop.addHolder();
    this.#accept();
  }

  get address(): ListenAddress {
    return this.#socket.address;
  }

  get fd(): number {
    return this.#socket.fd;
  }

  async close(): Promise<void> {
    if (this.#onClosed !== null) return;
    await this.leave();
    unlinkSocket(this.#socket);
  }

  async leave(): Promise<void> {
    if (this.#onClosed !== null) return;
    await new Promise<void>((resolve) => {
      this.#onClosed = resolve;
      if (this.#retry !== null) clearTimeout(this.#retry);
      if (!this.#accepting) {
        this.#finish();
        return;
      }
      const { ring } = this.#context.loop;
      const at = ring.prepare({ ringDone: () => {} });
      ring.words[at + SQE_WORD.opcodeFlagsIoprio] = IORING_OP_ASYNC_CANCEL;
      ring.words[at + SQE_WORD.fd] = this.fd;
      ring.words[at + SQE_WORD.opFlags] = IORING_ASYNC_CANCEL_FD | IORING_ASYNC_CANCEL_ALL;
    });
  }

  /** One request that goes on accepting until it ends with an error or is cancelled. */
  #accept(): void {
    this.#accepting = true;
    const { ring } = this.#context.loop;
    const at = ring.prepare({ ringDone: (result, flags) => this.#accepted(result, flags) });
    ring.words[at + SQE_WORD.opcodeFlagsIoprio] =
      IORING_OP_ACCEPT | (IORING_ACCEPT_MULTISHOT << IOPRIO_SHIFT);
    ring.words[at + SQE_WORD.fd] = this.fd;
    ring.words[at + SQE_WORD.opFlags] = SOCK_CLOEXEC;
  }

  #accepted(result: number, flags: number): void {
    this.#accepting = (flags & IORING_CQE_F_MORE) !== 0;
    if (result >= 0) this.#welcome(result);
    if (this.#accepting) return;
    if (this.#onClosed !== null) this.#finish();
    else if (result >= 0) this.#accept();
    else this.#retry = setTimeout(() => this.#accept(), ACCEPT_RETRY_MS);
  }

  #welcome(fd: number): void {
    if (this.#onClosed === null) this.#onDescriptor(fd);
    else this.#context.addon.fileClose(fd);
  }

  #finish(): void {
    this.#context.addon.fileClose(this.fd);
    this.#context.loop.dropHolder();
    this.#onClosed?.();
  }
}

export async function ringConnect(context: NetContext, address: ListenAddress): Promise<ByteStream> {
  const refusedFor = (what: string): LaminaError =>
    new LaminaError("CONNECT_REFUSED", { address: addressText(address), what });
  const refused = (errno: number): LaminaError => refusedFor(errnoText(errno));
  if (address.kind === "fd") throw refused(Errno.EINVAL);
  const port = address.kind === "tcp" ? address.port : UNIX_SOCKET;
  let hosts: string[];
  try {
    hosts = address.kind === "tcp" ? await resolveHost(address.host) : [address.path];
  } catch (error) {
    throw refused(errnoOf(error));
  }
  let result: number = Errno.EINVAL;
  for (const host of hosts) {
    result = await connectOne(context, host, port);
    if (result < 0) continue;
    const stranger = address.kind === "unix" && address.onlyOwn === true ? strangerAt(context, result) : null;
    if (stranger !== null) {
      context.addon.fileClose(result);
      throw refusedFor(stranger);
    }
    if (port !== UNIX_SOCKET) tuneTcp(context.addon, result, context.tcpUserTimeoutMs);
    return new RingStream(context, result, peerOf(context.addon.socketPeer(result)));
  }
  throw refused(result);
}

const ROOT = 0;

/** Who listens at the other end of a unix socket, if it is neither this user nor root. */
function strangerAt({ addon }: NetContext, fd: number): string | null {
  const owner = addon.socketOwner(fd);
  if (owner < 0) return errnoText(owner);
  return owner === ROOT || owner === process.geteuid!() ? null : `user ${owner} listens there`;
}

/** A connected descriptor, or −errno. */
async function connectOne(context: NetContext, host: string, port: number): Promise<number> {
  const { addon, loop } = context;
  const fd = addon.socketOpen(host, port);
  if (fd < 0) return fd;
  const result = await new Promise<number>((resolve) => {
    const { ring } = loop;
    const at = ring.arenaTake(SOCKADDR_BYTES);
    const bytes = new Uint8Array(ring.arenaWords.buffer, ring.arenaWords.byteOffset + at, SOCKADDR_BYTES);
    const length = addon.socketAddress(host, port, bytes);
    const address = ring.arenaAddress(at);
    const entry = ring.prepare({ ringDone: resolve });
    ring.words[entry + SQE_WORD.opcodeFlagsIoprio] = IORING_OP_CONNECT;
    ring.words[entry + SQE_WORD.fd] = fd;
    ring.words[entry + SQE_WORD.addr] = address;
    ring.words[entry + SQE_WORD.addr + 1] = address / TWO_32;
    ring.words[entry + SQE_WORD.off] = length;
  });
  if (result === 0) return fd;
  addon.fileClose(fd);
  return result;
}
