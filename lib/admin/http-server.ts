/**
 * The admin API's HTTP side: two listeners (unix socket and TCP), one way through a request.
 *
 * Invariants
 *  1. Nothing but /healthz and /metrics is answered before host and token are checked.
 *  2. Bodies, headers, connections, streams and waiting times are bounded.
 *  3. Every refusal is {"error": {code, message, next}} with the status of the catalogue.
 */
import { chmodSync, rmSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { type SocketPath, socketPath } from "../catalog/socket-path.js";
import { LaminaError } from "../core/errors.js";
import type { AdminSources } from "./api.js";
import { checkHost, checkToken, loadToken } from "./auth.js";
import { readBody } from "./body.js";
import { EventStreams } from "./event-stream.js";
import { Metrics } from "./metrics.js";
import { matchRoute, type RouteAnswer } from "./routes.js";
import { notReadyReason } from "./views.js";

export const ADMIN_SOCKET = "admin.sock";

const CONNECTIONS_MAX = 256;
const HEADERS_TIMEOUT_MS = 10_000;
const REQUEST_TIMEOUT_MS = 30_000;
const HEADER_BYTES_MAX = 16 * 1024;

export interface AdminOptions {
  readonly sources: AdminSources;
  /** Holds the socket and the token. */
  readonly directory: string;
  /** TCP listener. Port 0: any. */
  readonly host: string;
  readonly port: number;
  /** What went wrong while answering, when it was not the client's fault. */
  readonly onError: (error: unknown) => void;
}

export interface Admin {
  /** host:port that TCP listens on. */
  readonly address: string;
  close(): Promise<void>;
}

/** Throws LISTEN_REFUSED; nothing listens then. */
export async function startAdmin(options: AdminOptions): Promise<Admin> {
  const handler = new Handler(options, loadToken(options.directory));
  const unix = socketPath(options.directory, ADMIN_SOCKET);
  const local = await listenUnix(unix, (request, response) => handler.handle(request, response, "unix"));
  let remote: Server;
  try {
    remote = await listenTcp(options, (request, response) => handler.handle(request, response, "tcp"));
  } catch (error) {
    await closeServer(local);
    rmSync(unix.real, { force: true });
    unix.release();
    throw error;
  }
  const { address, port, family } = remote.address() as AddressInfo;
  return {
    address: `${family === "IPv6" ? `[${address}]` : address}:${port}`,
    async close() {
      handler.close();
      await Promise.all([closeServer(local), closeServer(remote)]);
      rmSync(unix.real, { force: true });
      unix.release();
    },
  };
}

type OnRequest = (request: IncomingMessage, response: ServerResponse) => void;

function newServer(onRequest: OnRequest): Server {
  const server = createServer({ maxHeaderSize: HEADER_BYTES_MAX }, onRequest);
  server.maxConnections = CONNECTIONS_MAX;
  server.headersTimeout = HEADERS_TIMEOUT_MS;
  server.requestTimeout = REQUEST_TIMEOUT_MS;
  return server;
}

async function listenUnix(path: SocketPath, onRequest: OnRequest): Promise<Server> {
  // The data directory is ours (its lock is held): a socket that is there is a dead process's.
  rmSync(path.real, { force: true });
  const server = newServer(onRequest);
  const mask = process.umask(0o177);
  try {
    await listen(server, path.real, () => server.listen(path.short));
  } finally {
    process.umask(mask);
  }
  chmodSync(path.real, 0o600);
  return server;
}

async function listenTcp({ host, port }: AdminOptions, onRequest: OnRequest): Promise<Server> {
  const server = newServer(onRequest);
  await listen(server, `${host}:${port}`, () => server.listen({ host, port }));
  return server;
}

async function listen(server: Server, address: string, start: () => void): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error) => {
      reject(new LaminaError("LISTEN_REFUSED", { address, what: plainReason(error) }, error));
    });
    server.once("listening", resolve);
    start();
  });
  server.removeAllListeners("error");
  server.on("error", () => {});
}

function plainReason(error: Error): string {
  const code = "code" in error ? String(error.code) : "";
  const known: Readonly<Record<string, string>> = {
    EADDRINUSE: "it is in use",
    EACCES: "permission denied",
    EADDRNOTAVAIL: "this machine does not have that address",
    ENOTFOUND: "that host is not known",
  };
  return known[code] ?? error.message;
}

async function closeServer(server: Server): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  server.closeIdleConnections();
  const force = setTimeout(() => server.closeAllConnections(), 1000);
  await closed;
  clearTimeout(force);
}

class Handler {
  readonly #options: AdminOptions;
  readonly #token: string;
  readonly #metrics: Metrics;
  readonly #streams: EventStreams;

  constructor(options: AdminOptions, token: string) {
    this.#options = options;
    this.#token = token;
    this.#metrics = new Metrics(options.sources);
    this.#streams = new EventStreams(options.sources.events);
  }

  close(): void {
    this.#streams.close();
    this.#metrics.close();
  }

  handle(request: IncomingMessage, response: ServerResponse, side: "unix" | "tcp"): void {
    this.#answer(request, response, side).catch((error: unknown) => this.#refuse(response, error));
  }

  async #answer(request: IncomingMessage, response: ServerResponse, side: "unix" | "tcp"): Promise<void> {
    const [path = "", search = ""] = (request.url ?? "").split("?", 2);
    if (side === "tcp") checkHost(request, this.#options.host);
    if (path === "/healthz") {
      this.#health(response);
      return;
    }
    if (path === "/metrics") {
      send(response, 200, this.#metrics.contentType, await this.#metrics.text());
      return;
    }
    if (side === "tcp") checkToken(request, this.#token);
    const { route, params } = matchRoute(request.method ?? "", path);
    if (route.path === "/v1/events" && wantsStream(request)) {
      if (this.#streams.full) throw new LaminaError("EVENT_STREAMS_FULL");
      this.#streams.serve(request, response);
      return;
    }
    const query = Object.fromEntries(new URLSearchParams(search));
    const body = await readBody(request);
    sendAnswer(response, await route.handle(this.#options.sources, { params, query, body }));
  }

  #health(response: ServerResponse): void {
    const reason = notReadyReason(this.#options.sources);
    send(response, reason === null ? 200 : 503, "text/plain; charset=utf-8", `${reason ?? "ok"}\n`);
  }

  #refuse(response: ServerResponse, error: unknown): void {
    if (response.headersSent) {
      response.destroy();
      return;
    }
    // The rest of a refused body is not read.
    response.setHeader("connection", "close");
    if (error instanceof LaminaError) {
      const { code, message, next } = error;
      sendJson(response, error.httpStatus, { error: { code: `LAMINA_${code}`, message, next } });
      return;
    }
    this.#options.onError(error);
    const message = "the server failed to answer this request";
    const next = "see its log";
    sendJson(response, 500, { error: { code: "LAMINA_INTERNAL", message, next } });
  }
}

function wantsStream(request: IncomingMessage): boolean {
  return (request.headers.accept ?? "").includes("text/event-stream");
}

function sendAnswer(response: ServerResponse, answer: RouteAnswer): void {
  if (answer.status === 204) response.writeHead(204).end();
  else sendJson(response, answer.status, answer.body);
}

function sendJson(response: ServerResponse, status: number, body: unknown): void {
  send(response, status, "application/json", `${JSON.stringify(body)}\n`);
}

function send(response: ServerResponse, status: number, type: string, body: string): void {
  const headers = {
    "content-type": type,
    "content-length": Buffer.byteLength(body),
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
  };
  response.writeHead(status, headers).end(body);
}
