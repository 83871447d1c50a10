/**
 * How other servers are known to answer otherwise than Lamina, and who is right; docs/nbd-deviations.md is made of it.
 * Seen with nbd-server 3.24, nbdkit 1.32.5 and qemu-nbd 7.2.22 of Debian 12.
 */
export type Peer = "nbdkit" | "qemu-nbd" | "nbd-server";
/** "may": the specification leaves it open; "theirs": they break a rule; "unsupported": they have no such feature. */
export type Why = "may" | "theirs" | "unsupported";

export interface Deviation {
  readonly server: Peer;
  readonly probe: string;
  readonly answer: string;
  readonly why: Why;
}

/** Lamina's answer to a probe that some server answers otherwise, and what the specification has to say. */
export interface Question {
  readonly lamina: string;
  readonly rule: string;
}

const NEEDS_STRUCTURED = "contexts need structured replies first";
const EMPTY = "a request of length 0 is unspecified, and must not end the connection";
const PAST_THE_END = "writing past the end should be ENOSPC";

export const QUESTIONS: Readonly<Record<string, Question>> = {
  ABORT: { lamina: "ACK", rule: "the server acknowledges, then closes" },
  "STRUCTURED_REPLY with data": { lamina: "ERR_INVALID", rule: "the option has no data" },
  "STRUCTURED_REPLY twice": { lamina: "ACK ERR_INVALID", rule: "the second one may be refused" },
  "GO with fewer requests than it says": { lamina: "ERR_INVALID", rule: "wrong lengths are ERR_INVALID" },
  "GO without data": { lamina: "ERR_INVALID", rule: "wrong lengths are ERR_INVALID" },
  "INFO and GO agree": { lamina: "yes", rule: "both tell the same of an export" },
  "an option of 4 GiB": { lamina: "closed", rule: "a server may end what looks like an attack" },
  "contexts before STRUCTURED_REPLY": { lamina: "ERR_INVALID", rule: NEEDS_STRUCTURED },
  "two queries for one context": { lamina: "META_CONTEXT ACK", rule: "a context is selected once" },
  "list of contexts": { lamina: "META_CONTEXT ACK", rule: "`base:` lists the contexts of that namespace" },
  "zero past the end": { lamina: "NBD_ENOSPC", rule: PAST_THE_END },
  "write past the end": { lamina: "NBD_ENOSPC", rule: PAST_THE_END },
  "write longer than the export": { lamina: "NBD_ENOSPC", rule: PAST_THE_END },
  "NO_HOLE on READ": { lamina: "NBD_EINVAL", rule: "a flag of another command is EINVAL" },
  "FLUSH with a range": { lamina: "NBD_EINVAL", rule: "offset and length are reserved and zero" },
  "read of nothing": { lamina: "NBD_EINVAL", rule: EMPTY },
  "write of nothing": { lamina: "NBD_EINVAL", rule: EMPTY },
  CACHE: { lamina: "success", rule: "a server that does not advertise it refuses it" },
  "structured read over data and holes": { lamina: "as written", rule: "chunks cover the range exactly" },
};

type Answers = readonly (readonly [probe: string, answer: string, why: Why])[];

const ANSWERS: Readonly<Record<Peer, Answers>> = {
  nbdkit: [
    ["STRUCTURED_REPLY twice", "ACK ACK", "may"],
    ["two queries for one context", "META_CONTEXT META_CONTEXT ACK", "theirs"],
    ["write of nothing", "NBD_ENOSPC", "may"],
  ],
  "qemu-nbd": [
    ["zero past the end", "NBD_EINVAL", "theirs"],
    ["write past the end", "NBD_EINVAL", "theirs"],
    ["write longer than the export", "NBD_EINVAL", "theirs"],
    ["FLUSH with a range", "success", "may"],
    ["read of nothing", "success", "may"],
    ["write of nothing", "success", "may"],
  ],
  "nbd-server": [
    ["ABORT", "closed", "theirs"],
    ["GO with fewer requests than it says", "silence", "theirs"],
    ["GO without data", "silence", "theirs"],
    ["INFO and GO agree", "no", "theirs"],
    ["an option of 4 GiB", "silence", "theirs"],
    ["NO_HOLE on READ", "success", "theirs"],
    ["FLUSH with a range", "success", "may"],
    ["read of nothing", "success", "may"],
    ["write of nothing", "success", "may"],
    ["STRUCTURED_REPLY with data", "ERR_UNSUP", "unsupported"],
    ["STRUCTURED_REPLY twice", "ERR_UNSUP ERR_UNSUP", "unsupported"],
    ["contexts before STRUCTURED_REPLY", "ERR_UNSUP", "unsupported"],
    ["two queries for one context", "ERR_UNSUP", "unsupported"],
    ["list of contexts", "ERR_UNSUP", "unsupported"],
    ["CACHE", "NBD_EINVAL", "unsupported"],
    ["structured read over data and holes", "unsupported", "unsupported"],
  ],
};

export const PEERS = Object.keys(ANSWERS) as readonly Peer[];

export const DEVIATIONS: readonly Deviation[] = PEERS.flatMap((server) =>
  ANSWERS[server].map(([probe, answer, why]) => ({ server, probe, answer, why })),
);
