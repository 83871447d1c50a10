/** What ring engines of one process do for one another: bells, mailboxes, sockets that change threads. */
import type { ByteStream } from "../core/stream.js";
import { checkResult } from "./addon.js";
import type { ListenAddress, Listener, Mailbox, ThreadLinks } from "./api.js";
import { type NetContext, ringAdopt, ringListen } from "./ring-net.js";

export class RingThreadLinks implements ThreadLinks {
  readonly #net: NetContext;
  #bell = -1;

  constructor(net: NetContext) {
    this.#net = net;
  }

  get bell(): number {
    if (this.#bell < 0) this.#bell = checkResult("eventfd", this.#net.addon.bellCreate());
    return this.#bell;
  }

  addMailbox(mailbox: Mailbox): void {
    this.#net.loop.addMailbox(mailbox, this.bell);
  }

  ring(bell: number): void {
    checkResult("ringing another thread", this.#net.addon.bellRing(bell));
  }

  listen(address: ListenAddress, onDescriptor: (fd: number) => void): Promise<Listener> {
    return ringListen(this.#net, address, onDescriptor);
  }

  adopt(fd: number): ByteStream {
    return ringAdopt(this.#net, fd);
  }

  discard(fd: number): void {
    this.#net.addon.fileClose(fd);
  }

  writeStats(out: Float64Array, at: number): void {
    const { loop, traffic } = this.#net;
    out[at] = loop.ring.enters;
    out[at + 1] = loop.ring.stats.submissions;
    out[at + 2] = loop.ring.stats.completions;
    out[at + 3] = loop.wakeups;
    out[at + 4] = traffic.bytesReceived;
    out[at + 5] = traffic.bytesSent;
  }

  close(): void {
    if (this.#bell >= 0) this.#net.addon.fileClose(this.#bell);
  }
}
