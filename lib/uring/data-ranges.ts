/** Which parts of a file have bytes, as its file system knows (lseek(2), SEEK_DATA). */
import { Errno } from "./abi.js";
import { addon, checkResult } from "./addon.js";

export interface DataRange {
  readonly start: number;
  /** Behind the last byte. */
  readonly end: number;
}

/**
 * The ranges of the first `size` bytes of `fd` that are not holes, in order. Where the file system or device
 * cannot tell, everything is data. Moves the descriptor's own position.
 */
export function* dataRanges(fd: number, size: number): Generator<DataRange> {
  const native = addon();
  for (let at = 0; at < size; ) {
    const start = native.fileSeek(fd, at, 0);
    if (start === -Errno.ENXIO) return;
    if (start === -Errno.EINVAL || start === -Errno.ENOTTY) {
      yield { start: at, end: size };
      return;
    }
    if (checkResult("looking for data in the file", start) >= size) return;
    const end = Math.min(size, checkResult("looking for a hole in the file", native.fileSeek(fd, start, 1)));
    if (end <= start) throw new Error("the file changed while its holes were looked for");
    yield { start, end };
    at = end;
  }
}
