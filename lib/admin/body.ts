/** Bodies of requests: JSON, bounded. */
import type { IncomingMessage } from "node:http";
import { LaminaError } from "../core/errors.js";

/** A longer body is refused before it is read to its end. */
export const BODY_BYTES_MAX = 64 * 1024;

/** Parsed JSON; undefined without a body. Throws BODY_INVALID. */
export async function readBody(request: IncomingMessage): Promise<unknown> {
  const parts: Buffer[] = [];
  let length = 0;
  for await (const part of request as AsyncIterable<Buffer>) {
    length += part.length;
    if (length > BODY_BYTES_MAX) {
      throw new LaminaError("BODY_INVALID", { what: `it is longer than ${BODY_BYTES_MAX} bytes` });
    }
    parts.push(part);
  }
  if (length === 0) return undefined;
  const type = request.headers["content-type"] ?? "";
  if (!/^application\/json\b/i.test(type)) {
    throw new LaminaError("BODY_INVALID", { what: "its content type is not application/json" });
  }
  try {
    return JSON.parse(Buffer.concat(parts).toString("utf8")) as unknown;
  } catch {
    throw new LaminaError("BODY_INVALID", { what: "it is not JSON" });
  }
}
