import { connect } from "node:net";
import t, { type Test } from "tap";
import { askText } from "../../../lib/cluster/dial.js";
import { type ClusterKey, keyOf } from "../../../lib/cluster/key.js";
import { Purpose } from "../../../lib/cluster/prelude.js";
import { NODE, type Served, serve } from "./support/served.js";

const OTHER = "f".repeat(32);
const ASK_BYTES = 40;
const ANSWER_BYTES = 104;

function key(cluster: number, secret: number): ClusterKey {
  return keyOf(new Uint8Array(16).fill(cluster), new Uint8Array(32).fill(secret));
}

interface Rig extends Served {
  readonly sessions: () => number;
  readonly refused: () => number;
}

async function rig(t: Test): Promise<Rig> {
  let sessions = 0;
  let refused = 0;
  const { engine, address } = await serve(t, () => ({ key: key(1, 2), tls: null }), {
    session: () => sessions++,
    describe: () => "described",
    records: () => "r".repeat(100_000),
    refused: () => refused++,
  });
  return { engine, address, sessions: () => sessions, refused: () => refused };
}

/** Sends `first`, and `second` when the node has answered; resolves with the number of bytes it got in all. */
function talk(port: number, first: Uint8Array, second: Uint8Array | null): Promise<number> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, "127.0.0.1");
    let received = 0;
    socket.on("error", reject);
    socket.on("connect", () => socket.write(first));
    socket.on("data", (bytes) => {
      received += bytes.length;
      if (received === ANSWER_BYTES && second !== null) socket.write(second);
    });
    socket.on("close", () => resolve(received));
  });
}

function ask(purpose: number): Uint8Array {
  const bytes = new Uint8Array(ASK_BYTES).fill(7);
  bytes.set(new TextEncoder().encode("LnAu"));
  bytes.set([1, 0, purpose, 0], 4);
  return bytes;
}

t.test("who has the key is told, in pieces too", async (t) => {
  const { engine, address } = await rig(t);
  const described = await askText(engine, key(1, 2), { address, purpose: Purpose.Describe, expected: NODE });
  t.same(described, { node: NODE, text: "described" });
  const records = await askText(engine, key(1, 2), { address, purpose: Purpose.Records, expected: null });
  t.equal(records.text.length, 100_000);
});

t.test("another key, another cluster and another node are told apart, and nobody gets in", async (t) => {
  const { engine, address, sessions, refused } = await rig(t);
  const asked = { address, purpose: Purpose.Session, expected: NODE };
  await t.rejects(askText(engine, key(1, 3), asked), { code: "CLUSTER_KEY_WRONG" });
  await t.rejects(askText(engine, key(2, 2), asked), { code: "CLUSTER_KEY_WRONG" });
  await t.rejects(askText(engine, key(1, 2), { ...asked, expected: OTHER }), {
    code: "CLUSTER_NODE_STRANGE",
  });
  t.equal(sessions(), 0);
  t.equal(refused(), 0, "they hung up by themselves");
});

t.test("a wrong proof ends the connection, whatever follows it", async (t) => {
  const { address, sessions, refused } = await rig(t);
  for (const purpose of [Purpose.Session, Purpose.Describe, Purpose.Records]) {
    t.equal(await talk(address.port, ask(purpose), new Uint8Array(4096)), ANSWER_BYTES);
  }
  t.equal(refused(), 3);
  t.equal(sessions(), 0);
});

t.test("what is no question of the cluster gets no answer", async (t) => {
  const { address, sessions } = await rig(t);
  t.equal(await talk(address.port, new Uint8Array(ASK_BYTES), null), 0);
  t.equal(await talk(address.port, ask(9), null), 0, "a purpose that is unknown");
  const newer = ask(Purpose.Session);
  newer[4] = 2;
  t.equal(await talk(address.port, newer, null), 0, "another version");
  t.equal(sessions(), 0);
});
