/** Stands between client and server, passes everything on, and keeps what the server sends: TLS as it is on the wire. */
import { connect, createServer, type Server } from "node:net";
import type { Place } from "../raw-socket.js";

/** Content type of TLS alerts, close_notify among them. */
export const TLS_ALERT = 21;
/** Content type, version, length of a TLS record. */
const RECORD_HEADER_BYTES = 5;
/** Greeting, and the ACK to STARTTLS. */
const PLAINTEXT_BYTES = 18 + 20;

export class Wiretap {
  readonly place: Place;
  readonly #server: Server;
  readonly #said: Buffer[];

  private constructor(server: Server, port: number, said: Buffer[]) {
    this.#server = server;
    this.#said = said;
    this.place = { kind: "tcp", host: "127.0.0.1", port };
  }

  static async to(place: Place): Promise<Wiretap> {
    const said: Buffer[] = [];
    const server = createServer({ allowHalfOpen: true }, (client) => {
      const options = place.kind === "tcp" ? { host: place.host, port: place.port } : { path: place.path };
      const upstream = connect({ ...options, allowHalfOpen: true });
      upstream.on("data", (bytes: Buffer) => said.push(bytes));
      for (const socket of [client, upstream]) socket.on("error", () => socket.destroy());
      client.pipe(upstream);
      upstream.pipe(client);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const address = server.address();
    if (address === null || typeof address === "string") throw new Error("the wiretap does not listen");
    return new Wiretap(server, address.port, said);
  }

  /** Content type of the last TLS record that the server sent whole, on a connection that began with STARTTLS. */
  lastRecordType(): number {
    const bytes = Buffer.concat(this.#said);
    let type = -1;
    for (let at = PLAINTEXT_BYTES; at + RECORD_HEADER_BYTES <= bytes.length; ) {
      const length = bytes.readUInt16BE(at + 3);
      if (at + RECORD_HEADER_BYTES + length > bytes.length) break;
      type = bytes.readUInt8(at);
      at += RECORD_HEADER_BYTES + length;
    }
    return type;
  }

  close(): void {
    this.#server.close();
  }
}
