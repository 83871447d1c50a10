/** Descriptors on their way from one process of this machine to another: one datagram to a unix socket. */
import { unlinkSync } from "node:fs";
import { addon, checkNative, checkResult } from "./addon.js";

/** Sends duplicates of `descriptors` (128 at most) to whoever has opened the box at `path`. */
export function mailDescriptors(path: string, descriptors: readonly number[]): void {
  // A datagram without a byte could not be told from none.
  const sent = addon().datagramSend(path, "descriptors", Int32Array.from(descriptors));
  checkResult(`sending descriptors to ${path}`, sent);
}

/** Where descriptors can be sent to. */
export class DescriptorBox {
  readonly #path: string;
  readonly #fd: number;

  /** `path`: of a unix socket that does not exist yet. */
  constructor(path: string) {
    this.#path = path;
    this.#fd = checkResult(`the socket ${path}`, addon().datagramOpen(path));
  }

  /** What was sent: the caller's now, close-on-exec. Throws when nothing has come. */
  take(): readonly number[] {
    return checkNative(`receiving descriptors at ${this.#path}`, addon().datagramReceive(this.#fd))
      .descriptors;
  }

  close(): void {
    addon().fileClose(this.#fd);
    unlinkSync(this.#path);
  }
}
