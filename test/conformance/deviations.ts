/**
 * How other servers are known to answer otherwise than Lamina, and who is right. "may": the specification leaves it
 * open; "theirs": they break a rule; "unsupported": they do not have the feature. Seen with nbd-server 3.24, nbdkit
 * 1.32.5 and qemu-nbd 7.2.22 of Debian 12.
 */
export interface Deviation {
  readonly server: "nbdkit" | "qemu-nbd" | "nbd-server";
  readonly probe: string;
  readonly answer: string;
  readonly why: "may" | "theirs" | "unsupported";
}

export const DEVIATIONS: readonly Deviation[] = [
  { server: "nbdkit", probe: "STRUCTURED_REPLY twice", answer: "ACK ACK", why: "may" },
  {
    server: "nbdkit",
    probe: "two queries for one context",
    answer: "META_CONTEXT META_CONTEXT ACK",
    why: "theirs",
  },
  { server: "nbdkit", probe: "write of nothing", answer: "NBD_ENOSPC", why: "may" },
  { server: "qemu-nbd", probe: "zero past the end", answer: "NBD_EINVAL", why: "theirs" },
  { server: "qemu-nbd", probe: "write past the end", answer: "NBD_EINVAL", why: "theirs" },
  { server: "qemu-nbd", probe: "write longer than the export", answer: "NBD_EINVAL", why: "theirs" },
  { server: "qemu-nbd", probe: "FLUSH with a range", answer: "success", why: "may" },
  { server: "qemu-nbd", probe: "read of nothing", answer: "success", why: "may" },
  { server: "qemu-nbd", probe: "write of nothing", answer: "success", why: "may" },
  { server: "nbd-server", probe: "ABORT", answer: "closed", why: "theirs" },
  { server: "nbd-server", probe: "STRUCTURED_REPLY with data", answer: "ERR_UNSUP", why: "unsupported" },
  { server: "nbd-server", probe: "GO with fewer requests than it says", answer: "silence", why: "theirs" },
  { server: "nbd-server", probe: "GO without data", answer: "silence", why: "theirs" },
  {
    server: "nbd-server",
    probe: "contexts before STRUCTURED_REPLY",
    answer: "ERR_UNSUP",
    why: "unsupported",
  },
  {
    server: "nbd-server",
    probe: "STRUCTURED_REPLY twice",
    answer: "ERR_UNSUP ERR_UNSUP",
    why: "unsupported",
  },
  { server: "nbd-server", probe: "two queries for one context", answer: "ERR_UNSUP", why: "unsupported" },
  { server: "nbd-server", probe: "list of contexts", answer: "ERR_UNSUP", why: "unsupported" },
  { server: "nbd-server", probe: "INFO and GO agree", answer: "no", why: "theirs" },
  { server: "nbd-server", probe: "an option of 4 GiB", answer: "silence", why: "theirs" },
  { server: "nbd-server", probe: "NO_HOLE on READ", answer: "success", why: "theirs" },
  { server: "nbd-server", probe: "FLUSH with a range", answer: "success", why: "may" },
  { server: "nbd-server", probe: "read of nothing", answer: "success", why: "may" },
  { server: "nbd-server", probe: "write of nothing", answer: "success", why: "may" },
  { server: "nbd-server", probe: "CACHE", answer: "NBD_EINVAL", why: "unsupported" },
  {
    server: "nbd-server",
    probe: "structured read over data and holes",
    answer: "unsupported",
    why: "unsupported",
  },
];
