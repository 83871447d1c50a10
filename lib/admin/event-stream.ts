/** GET /v1/events with `Accept: text/event-stream`: server-sent events, resumed by Last-Event-ID. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { EVENT_ID, type EventLog, type LaminaEvent } from "../catalog/events.js";
import { eventView } from "./views.js";

/** Streams at a time; one more is answered with 503. */
export const EVENT_STREAMS_MAX = 64;
/** A reader that leaves this much unread is cut off; it resumes by its last id. */
const UNREAD_BYTES_MAX = 256 * 1024;
/** Comments keep proxies and dead readers from holding a silent stream. */
const HEARTBEAT_MS = 15_000;

export class EventStreams {
  readonly #log: EventLog;
  readonly #open = new Set<ServerResponse>();

  constructor(log: EventLog) {
    this.#log = log;
  }

  get full(): boolean {
    return this.#open.size >= EVENT_STREAMS_MAX;
  }

  serve(request: IncomingMessage, response: ServerResponse): void {
    const header = request.headers["last-event-id"];
    const after = typeof header === "string" && EVENT_ID.test(header) ? header : this.#log.lastId;
    response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
    const send = (event: LaminaEvent): void => {
      response.write(`id: ${event.id}\nevent: ${event.kind}\ndata: ${JSON.stringify(eventView(event))}\n\n`);
      if (response.writableLength > UNREAD_BYTES_MAX) response.destroy();
    };
    response.write(": lamina events\n\n");
    for (const event of this.#log.after(after)) send(event);
    const unsubscribe = this.#log.subscribe(send);
    const heartbeat = setInterval(() => response.write(": still here\n\n"), HEARTBEAT_MS);
    heartbeat.unref();
    this.#open.add(response);
    response.once("close", () => {
      this.#open.delete(response);
      clearInterval(heartbeat);
      unsubscribe();
    });
  }

  close(): void {
    for (const response of this.#open) response.end();
  }
}
