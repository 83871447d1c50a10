/** A node's door, a Porter, on a port of its own. */
import type { Test } from "tap";
import { type Credentials, Porter, type Reception } from "../../../../lib/cluster/prelude.js";
import { MIB } from "../../../../lib/core/limits.js";
import type { Engine } from "../../../../lib/uring/api.js";
import { openEngine } from "../../../../lib/uring/engine.js";

export const NODE = "0123456789abcdef0123456789abcdef";
export const HOST = "127.0.0.1";

export interface Served {
  readonly engine: Engine;
  readonly address: { readonly kind: "tcp"; readonly host: string; readonly port: number };
}

/** Says nothing of interest, and closes the sessions that are handed to it. */
export const SILENT: Reception = {
  session(stream) {
    stream.setListener({ streamReceived() {}, streamSent() {}, streamClosed() {} });
    stream.close();
  },
  describe: () => "{}",
  records: () => "[]",
  devices: () => "[]",
  extents: () => "{}",
  board: () => "{}",
  refused: () => undefined,
};

/** Until the end of the test. `reception`: what is to be another answer than SILENT's. */
export async function serve(
  t: Pick<Test, "teardown">,
  credentials: (engine: Engine) => Credentials,
  reception: Partial<Reception>,
  poolMib = 16,
): Promise<Served> {
  const engine = openEngine({ kind: "threads", poolBytes: poolMib * MIB });
  const all: Reception = {
    ...SILENT,
    ...reception,
    session(stream) {
      reception.session?.(stream);
      SILENT.session(stream);
    },
  };
  const porter = new Porter(engine, credentials(engine), NODE, all);
  const listener = await engine.listen({ kind: "tcp", host: HOST, port: 0 }, (stream) =>
    porter.admit(stream),
  );
  t.teardown(async () => {
    porter.close();
    await listener.close();
    await engine.close();
  });
  const { address } = listener;
  if (address.kind !== "tcp") throw new Error("it listens on TCP");
  return { engine, address };
}
