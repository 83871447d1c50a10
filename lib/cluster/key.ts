/**
 * The cluster key: one small file that every node and gateway of a cluster has. Who has it is one of them.
 *
 *     lamina-cluster-key 1
 *     cluster 32 hexadecimal digits
 *     secret 64 hexadecimal digits
 */
import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { LaminaError } from "../core/errors.js";

const FIRST_LINE = "lamina-cluster-key 1";
const CLUSTER_BYTES = 16;
const SECRET_BYTES = 32;
const OTHERS = 0o077;
/** A longer file is no key. */
const KEY_FILE_BYTES_MAX = 4096;

/** Bytes of a proof. */
export const PROOF_BYTES = 32;

export interface ClusterKey {
  /** 16 bytes: identity of the cluster. */
  readonly cluster: Uint8Array;
  /** HMAC-SHA-256 over `parts`, one behind the other. */
  prove(label: string, ...parts: readonly Uint8Array[]): Uint8Array;
  /** Compares in constant time. */
  isProof(proof: Uint8Array, label: string, ...parts: readonly Uint8Array[]): boolean;
}

/** Makes a new cluster's key. Throws ARGUMENT_INVALID rather than replace one. */
export function createKey(path: string): ClusterKey {
  const cluster = randomBytes(CLUSTER_BYTES).toString("hex");
  const secret = randomBytes(SECRET_BYTES).toString("hex");
  const text = `${FIRST_LINE}\ncluster ${cluster}\nsecret ${secret}\n`;
  try {
    writeFileSync(path, text, { flag: "wx", mode: 0o600, flush: true });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") {
      const hint = "use it, or name another directory with --data";
      throw new LaminaError("ARGUMENT_INVALID", { what: `${path} exists already`, hint });
    }
    throw new LaminaError("FILE_UNUSABLE", { path, what: (error as Error).message }, error);
  }
  return parseKey(text)!;
}

/** Throws CLUSTER_KEY_INVALID. */
export function readKey(path: string): ClusterKey {
  const invalid = (what: string, cause?: unknown): LaminaError =>
    new LaminaError("CLUSTER_KEY_INVALID", { path, what }, cause);
  let text: string;
  try {
    const { mode, size } = statSync(path);
    if ((mode & OTHERS) !== 0) throw invalid(`others may read it; keep it to its owner: chmod 600 ${path}`);
    if (size > KEY_FILE_BYTES_MAX) throw invalid("it is too long");
    text = readFileSync(path, "utf8");
  } catch (error) {
    if (error instanceof LaminaError) throw error;
    throw invalid((error as Error).message, error);
  }
  const key = parseKey(text);
  if (key === null) throw invalid("it is not a cluster key");
  return key;
}

function parseKey(text: string): ClusterKey | null {
  const match =
    /^lamina-cluster-key 1\ncluster ([0-9a-f]{32})\nsecret ([0-9a-f]{64})\n$/.exec(text) ?? undefined;
  if (match === undefined) return null;
  return keyOf(Buffer.from(match[1]!, "hex"), Buffer.from(match[2]!, "hex"));
}

export function keyOf(cluster: Uint8Array, secret: Uint8Array): ClusterKey {
  const prove = (label: string, ...parts: readonly Uint8Array[]): Uint8Array => {
    const mac = createHmac("sha256", secret).update(`${label}\0`);
    for (const part of parts) mac.update(part);
    return mac.digest();
  };
  return {
    cluster,
    prove,
    isProof: (proof, label, ...parts) =>
      proof.length === PROOF_BYTES && timingSafeEqual(proof, prove(label, ...parts)),
  };
}
