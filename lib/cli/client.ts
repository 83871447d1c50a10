/** The admin API as commands see it: over the socket in a data directory, or --server URL with LAMINA_TOKEN. */
import { existsSync } from "node:fs";
import { type ClientRequest, type IncomingMessage, type RequestOptions, request } from "node:http";
import { request as requestTls } from "node:https";
import { resolve } from "node:path";
import { ADMIN_SOCKET } from "../admin/index.js";
import { type SocketPath, socketPath } from "../catalog/index.js";
import { LaminaError } from "../core/errors.js";

/** An answer that does not begin by then is not coming: the server hangs or is no Lamina. */
const ANSWER_TIMEOUT_MS = 30_000;
/** A longer answer is not read. */
const ANSWER_BYTES_MAX = 64 * 1024 * 1024;

/** A refusal by the server, in its words. */
export class ApiError extends Error {
  override readonly name = "ApiError";
  readonly code: string;
  readonly next: string;

  constructor(code: string, message: string, next: string) {
    super(message);
    this.code = code;
    this.next = next;
  }
}

export interface Target {
  /** Data directory of a server on this machine. */
  readonly data: string;
  /** URL of its admin address; takes precedence. */
  readonly server?: string | undefined;
}

type Method = "GET" | "POST" | "PATCH" | "DELETE";

export class AdminClient {
  readonly #target: Target;
  readonly #url: URL | null;

  constructor(target: Target) {
    this.#target = target;
    this.#url = target.server === undefined ? null : parseServer(target.server);
  }

  /** What messages call the server. */
  get name(): string {
    return this.#url?.origin ?? resolve(this.#target.data);
  }

  /** Host of a server that was named by its URL; null: it is on this machine. */
  get host(): string | null {
    return this.#url === null ? null : hostOf(this.#url);
  }

  /** Throws ApiError with the server's words, or LaminaError when there is no server. */
  async ask<T>(method: Method, path: string, body?: unknown): Promise<T> {
    const text = body === undefined ? "" : JSON.stringify(body);
    const headers =
      text === "" ? {} : { "content-type": "application/json", "content-length": Buffer.byteLength(text) };
    const response = await this.#send(method, path, headers, text);
    const answer = await readAll(response);
    const status = response.statusCode ?? 0;
    if (status >= 200 && status < 300) return (answer === "" ? undefined : JSON.parse(answer)) as T;
    throw this.#refusal(status, answer);
  }

  /** Server-sent events, each as parsed JSON, until the server ends the stream. */
  async *events(after: string | null): AsyncGenerator<unknown> {
    const headers = { accept: "text/event-stream", ...(after === null ? {} : { "last-event-id": after }) };
    const response = await this.#send("GET", "/v1/events", headers, "");
    if (response.statusCode !== 200) throw this.#refusal(response.statusCode ?? 0, await readAll(response));
    let rest = "";
    response.setEncoding("utf8");
    for await (const part of response) {
      const lines = (rest + String(part)).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) if (line.startsWith("data: ")) yield JSON.parse(line.slice("data: ".length));
    }
  }

  #send(
    method: Method,
    path: string,
    extra: Record<string, string | number>,
    body: string,
  ): Promise<IncomingMessage> {
    const token = process.env["LAMINA_TOKEN"];
    const headers = {
      ...extra,
      ...(token === undefined || this.#url === null ? {} : { authorization: `Bearer ${token}` }),
    };
    return this.#url === null
      ? this.#sendLocal({ method, path, headers }, body)
      : this.#sendRemote(this.#url, { method, path, headers }, body);
  }

  async #sendLocal(options: RequestOptions, body: string): Promise<IncomingMessage> {
    const { data } = this.#target;
    const missing = new LaminaError("SERVER_NOT_RUNNING", { data });
    if (!existsSync(data)) throw missing;
    const socket: SocketPath = socketPath(data, ADMIN_SOCKET);
    try {
      return await answerTo(request({ ...options, socketPath: socket.short, setHost: true }), body);
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code ?? "";
      if (["ENOENT", "ECONNREFUSED", "ENOTDIR", "ENOTSOCK"].includes(code)) throw missing;
      throw unreachable(socket.real, error);
    } finally {
      socket.release();
    }
  }

  async #sendRemote(url: URL, options: RequestOptions, body: string): Promise<IncomingMessage> {
    const send = url.protocol === "https:" ? requestTls : request;
    const where = { hostname: hostOf(url), port: url.port };
    try {
      return await answerTo(send({ ...options, ...where }), body);
    } catch (error) {
      throw unreachable(url.origin, error);
    }
  }

  #refusal(status: number, answer: string): Error {
    try {
      const { error } = JSON.parse(answer) as { error: { code: string; message: string; next: string } };
      return new ApiError(error.code, error.message, error.next);
    } catch {
      return new LaminaError("SERVER_ANSWER", { server: this.name, status });
    }
  }
}

function parseServer(server: string): URL {
  let url: URL | null = null;
  try {
    url = new URL(server);
  } catch {
    // Said below.
  }
  if (url === null || !/^https?:$/.test(url.protocol) || url.host === "") {
    throw new LaminaError("USAGE", {
      what: `--server '${server}' is not http://HOST:PORT`,
      help: "lamina --help",
    });
  }
  return url;
}

function answerTo(asking: ClientRequest, body: string): Promise<IncomingMessage> {
  return new Promise((resolvePromise, reject) => {
    asking.setTimeout(ANSWER_TIMEOUT_MS, () =>
      asking.destroy(new Error(`no answer within ${ANSWER_TIMEOUT_MS / 1000} s`)),
    );
    asking.once("response", (response) => {
      // Streams are silent for long.
      asking.setTimeout(0);
      resolvePromise(response);
    });
    asking.once("error", reject);
    asking.end(body);
  });
}

async function readAll(response: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  let length = 0;
  for await (const part of response as AsyncIterable<Buffer>) {
    length += part.length;
    if (length > ANSWER_BYTES_MAX) break;
    parts.push(part);
  }
  return Buffer.concat(parts).toString("utf8");
}

function unreachable(server: string, error: unknown): LaminaError {
  const what = error instanceof Error ? error.message || error.name : String(error);
  return new LaminaError("SERVER_UNREACHABLE", { server, what }, error);
}

function hostOf(url: URL): string {
  return url.hostname.replace(/^\[|\]$/g, "");
}
