/**
 * Who may use the API. Over the unix socket: whoever may open it (mode 0600). Over TCP: whoever has the token
 * of the data directory. The Host header must name us by address or by the configured name, so that no web
 * page can reach the API by making a name of its own point here (DNS rebinding).
 */
import { randomBytes, timingSafeEqual } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import type { IncomingMessage } from "node:http";
import { isIP } from "node:net";
import { join } from "node:path";
import { LaminaError } from "../core/errors.js";

export const TOKEN_FILE = "admin.token";
const TOKEN_BYTES = 32;

/** Reads the token of a data directory, making one (mode 0600) if there is none. */
export function loadToken(directory: string): string {
  const path = join(directory, TOKEN_FILE);
  try {
    const token = readFileSync(path, "utf8").trim();
    if (token !== "") return token;
  } catch (error) {
    if (!isMissing(error)) throw error;
  }
  const token = randomBytes(TOKEN_BYTES).toString("hex");
  writeFileSync(path, `${token}\n`, { mode: 0o600 });
  return token;
}

/** Throws UNAUTHORIZED. */
export function checkToken(request: IncomingMessage, token: string): void {
  const given = /^Bearer +([^ ]+) *$/i.exec(request.headers.authorization ?? "")?.[1] ?? "";
  const a = Buffer.from(given);
  const b = Buffer.from(token);
  if (a.length !== b.length || !timingSafeEqual(a, b)) throw new LaminaError("UNAUTHORIZED");
}

/** Throws HOST_REFUSED. `configured` is the host that --admin named. */
export function checkHost(request: IncomingMessage, configured: string): void {
  const header = request.headers.host ?? "";
  const match = /^(\[[0-9A-Fa-f:.]+\]|[^:]+)(?::\d{1,5})?$/.exec(header);
  const host = (match?.[1] ?? "").replace(/^\[|\]$/g, "").toLowerCase();
  const named = host === "localhost" || host === configured.toLowerCase();
  if (!named && isIP(host) === 0) throw new LaminaError("HOST_REFUSED", { host: header });
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "ENOENT";
}
