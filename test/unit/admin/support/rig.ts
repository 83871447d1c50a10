/** An admin API in a directory of its own, and a way to ask it. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Admin, startAdmin } from "../../../../lib/admin/index.js";
import { makeSources, type TestSources } from "./sources.js";

export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly text: string;
  readonly json: Record<string, unknown>;
}

export interface AskOptions {
  readonly method?: string;
  readonly headers?: Record<string, string>;
  readonly body?: unknown;
  readonly raw?: string;
  readonly side?: "unix" | "tcp";
}

export interface Rig {
  readonly directory: string;
  readonly sources: TestSources;
  readonly admin: Admin;
  readonly token: string;
  readonly errors: unknown[];
  ask(path: string, options?: AskOptions): Promise<Answer>;
}

export async function startRig(test: { teardown(fn: () => Promise<void>): void }): Promise<Rig> {
  const directory = mkdtempSync(join(tmpdir(), "lamina-admin-"));
  const sources = makeSources(directory);
  const errors: unknown[] = [];
  const onError = (error: unknown): void => {
    errors.push(error);
  };
  const admin = await startAdmin({ sources, directory, host: "127.0.0.1", port: 0, onError });
  test.teardown(async () => {
    await admin.close();
    rmSync(directory, { recursive: true, force: true });
  });
  const token = readFileSync(join(directory, "admin.token"), "utf8").trim();
  const ask = (path: string, options: AskOptions = {}): Promise<Answer> => {
    const where =
      options.side === "tcp"
        ? { host: "127.0.0.1", port: Number(admin.address.split(":").at(-1)) }
        : { socketPath: join(directory, "admin.sock") };
    const text = options.raw ?? (options.body === undefined ? "" : JSON.stringify(options.body));
    const json = text === "" ? {} : { "content-type": "application/json" };
    const length = text === "" ? {} : { "content-length": String(Buffer.byteLength(text)) };
    const headers = { ...json, ...length, ...options.headers };
    return new Promise((resolve, reject) => {
      const asking = request({ ...where, path, method: options.method ?? "GET", headers }, (response) => {
        const parts: Buffer[] = [];
        response.on("data", (part: Buffer) => parts.push(part));
        response.on("end", () => {
          const whole = Buffer.concat(parts).toString("utf8");
          let parsed: Record<string, unknown> = {};
          try {
            parsed = JSON.parse(whole) as Record<string, unknown>;
          } catch {
            // Not all answers are JSON.
          }
          resolve({ status: response.statusCode ?? 0, headers: response.headers, text: whole, json: parsed });
        });
      });
      asking.once("error", reject);
      asking.end(text);
    });
  };
  return { directory, sources, admin, token, errors, ask };
}
