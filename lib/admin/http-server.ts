/**
 * The admin API's HTTP side: two listeners (unix socket and TCP), one way through a request.
 *
 * Invariants
 *  1. Nothing but /healthz and /metrics is answered before host and token are checked.
 *  2. Bodies, headers, connections, streams and waiting times are bounded.
 *  3. Every refusal is {"error": {code, message, next}} with the status of the catalogue.
 */
import { rmSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { EventLog } from "../catalog/events.js";
import { type SocketPath, socketPath } from "../catalog/socket-path.js";
import { LaminaError } from "../core/errors.js";
import { type ListeningSocket, openListening } from "../uring/listening.js";
import type { AdminSources } from "./api.js";
import { checkHost, checkToken, loadToken } from "./auth.js";
import { readBody } from "./body.js";
import { EventStreams } from "./event-stream.js";
import { Metrics } from "./metrics.js";
import { matchRoute, ROUTES, type Route, type RouteAnswer, type RouteRequest } from "./routes.js";
import { notReadyReason } from "./views.js";

export const ADMIN_SOCKET = "admin.sock";

const CONNECTIONS_MAX = 256;
const HEADERS_TIMEOUT_MS = 10_000;
const REQUEST_TIMEOUT_MS = 30_000;
/** Answers that take longer are cut off when the server ends. */
const CLOSE_GRACE_MS = 1000;
const IDLE_POLL_MS = 10;
const HEADER_BYTES_MAX = 16 * 1024;

/** What is answered, whoever serves: a server of its own, or a node or gateway of a cluster. */
export interface AdminFace {
  readonly events: EventLog;
  /** Why /healthz is not 200; null when it is. */
  notReady(): string | null;
  readonly metrics: { readonly contentType: string; text(): Promise<string>; close(): void };
  /** Throws PATH_UNKNOWN or METHOD_UNKNOWN. */
  route(method: string, path: string): AnsweringRoute;
}

export interface AnsweringRoute {
  readonly path: string;
  readonly isLocal: boolean;
  answer(request: Omit<RouteRequest, "params">): RouteAnswer | Promise<RouteAnswer>;
}

export interface AdminOptions extends AdminPlace {
  readonly sources: AdminSources;
}

export interface AdminPlace {
  /** Holds the socket and the token. */
  readonly directory: string;
  /** TCP listener. Port 0: any. */
  readonly host: string;
  readonly port: number;
  /** Listening sockets of the server that this one replaces; −1 for one that is to be made. */
  readonly sockets?: { readonly local: number; readonly remote: number };
  /** What went wrong while answering, when it was not the client's fault. */
  readonly onError: (error: unknown) => void;
}

export interface Admin {
  /** host:port that TCP listens on. */
  readonly address: string;
  /** Listening sockets, while it is open. */
  readonly sockets: { readonly local: number; readonly remote: number };
  close(): Promise<void>;
  /** Closes without the unix socket's path: another process listens there. */
  leave(): Promise<void>;
}

/** Throws LISTEN_REFUSED; nothing listens then. */
export function startAdmin(options: AdminOptions): Promise<Admin> {
  const { sources } = options;
  return startAdminOf(
    {
      events: sources.events,
      notReady: () => notReadyReason(sources),
      metrics: new Metrics(sources),
      route: (method, path) => answering(ROUTES, sources, method, path),
    },
    options,
  );
}

/** Throws PATH_UNKNOWN or METHOD_UNKNOWN. */
export function answering<Sources>(
  routes: readonly Route<Sources>[],
  sources: Sources,
  method: string,
  path: string,
): AnsweringRoute {
  const { route, params } = matchRoute(routes, method, path);
  return {
    path: route.path,
    isLocal: route.local === true,
    answer: (request) => route.handle(sources, { ...request, params }),
  };
}

/** Throws LISTEN_REFUSED; nothing listens then. */
export async function startAdminOf(face: AdminFace, options: AdminPlace): Promise<Admin> {
  const handler = new Handler(face, options, loadToken(options.directory));
  const unix = socketPath(options.directory, ADMIN_SOCKET);
  const local = newServer((request, response) => handler.handle(request, response, "unix"));
  const remote = newServer((request, response) => handler.handle(request, response, "tcp"));
  const sockets = { local: -1, remote: -1 };
  try {
    sockets.local = await listen(local, () => unixSocket(unix, options));
    sockets.remote = await listen(remote, () => tcpSocket(options));
  } catch (error) {
    if (sockets.local >= 0) await closeServer(local);
    rmSync(unix.real, { force: true });
    unix.release();
    throw error;
  }
  const leave = async (): Promise<void> => {
    handler.close();
    await Promise.all([closeServer(local), closeServer(remote)]);
    unix.release();
  };
  const { address, port, family } = remote.address() as AddressInfo;
  return {
    address: `${family === "IPv6" ? `[${address}]` : address}:${port}`,
    sockets,
    leave,
    async close() {
      await leave();
      rmSync(unix.real, { force: true });
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

async function unixSocket(path: SocketPath, { sockets }: AdminPlace): Promise<ListeningSocket> {
  if (sockets !== undefined && sockets.local >= 0) return openListening({ kind: "fd", fd: sockets.local });
  // The data directory is ours (its lock is held): a socket that is there is a dead process's.
  rmSync(path.real, { force: true });
  const mask = process.umask(0o177);
  try {
    return await openListening({ kind: "unix", path: path.short });
  } finally {
    process.umask(mask);
  }
}

function tcpSocket({ sockets, host, port }: AdminPlace): Promise<ListeningSocket> {
  const handed = sockets?.remote ?? -1;
  return openListening(handed >= 0 ? { kind: "fd", fd: handed } : { kind: "tcp", host, port });
}

/** The socket that it listens on. Throws LISTEN_REFUSED. */
async function listen(server: Server, open: () => Promise<ListeningSocket>): Promise<number> {
  const { fd } = await open();
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen({ fd }, resolve);
  });
  server.removeAllListeners("error");
  server.on("error", () => {});
  return fd;
}

async function closeServer(server: Server): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  server.closeIdleConnections();
  // One that was answering is idle a moment later.
  const idle = setInterval(() => server.closeIdleConnections(), IDLE_POLL_MS);
  const force = setTimeout(() => server.closeAllConnections(), CLOSE_GRACE_MS);
  await closed;
  clearInterval(idle);
  clearTimeout(force);
}

class Handler {
  readonly #face: AdminFace;
  readonly #options: AdminPlace;
  readonly #token: string;
  readonly #streams: EventStreams;

  constructor(face: AdminFace, options: AdminPlace, token: string) {
    this.#face = face;
    this.#options = options;
    this.#token = token;
    this.#streams = new EventStreams(face.events);
  }

  close(): void {
    this.#streams.close();
    this.#face.metrics.close();
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
      const { metrics } = this.#face;
      send(response, 200, metrics.contentType, await metrics.text());
      return;
    }
    if (side === "tcp") checkToken(request, this.#token);
    const route = this.#face.route(request.method ?? "", path);
    if (route.isLocal && side === "tcp") throw new LaminaError("LOCAL_ONLY", { path });
    if (route.path === "/v1/events" && wantsStream(request)) {
      if (this.#streams.full) throw new LaminaError("EVENT_STREAMS_FULL");
      this.#streams.serve(request, response);
      return;
    }
    const query = Object.fromEntries(new URLSearchParams(search));
    const body = await readBody(request);
    sendAnswer(response, await route.answer({ query, body }));
  }

  #health(response: ServerResponse): void {
    const reason = this.#face.notReady();
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
