/** The short way to a node on the same machine: it is taken when the node is there, and whoever else is changes nothing. */
import t, { type Test } from "tap";
import { askText, type NodeAddress } from "../../../lib/cluster/dial.js";
import { type ClusterKey, keyOf } from "../../../lib/cluster/key.js";
import { Dialer } from "../../../lib/cluster/link-tls.js";
import { nearby } from "../../../lib/cluster/nearby.js";
import { Porter, Purpose } from "../../../lib/cluster/prelude.js";
import { MIB } from "../../../lib/core/limits.js";
import type { Engine, ListenAddress } from "../../../lib/uring/api.js";
import { openEngine } from "../../../lib/uring/engine.js";
import { HOST, NODE, SILENT } from "./support/served.js";

const OTHER = "f".repeat(32);

function key(secret: number): ClusterKey {
  return keyOf(new Uint8Array(16).fill(1), new Uint8Array(32).fill(secret));
}

/** An engine until the end of the test, and what is to be closed before it. */
interface Ground {
  readonly engine: Engine;
  readonly closers: (() => Promise<void>)[];
}

function ground(t: Test, kind: "threads" | "auto"): Ground {
  const engine = openEngine({ kind, poolBytes: 16 * MIB });
  const closers: (() => Promise<void>)[] = [];
  t.teardown(async () => {
    for (const close of closers) await close();
    await engine.close();
  });
  return { engine, closers };
}

/** Answers for `node` at an address with what it is called. */
async function door(
  { engine, closers }: Ground,
  at: ListenAddress,
  node: string,
  secret: number,
  called: string,
): Promise<ListenAddress> {
  const porter = new Porter(engine, { key: key(secret), tls: null }, node, {
    ...SILENT,
    describe: () => called,
  });
  const listener = await engine.listen(at, (stream) => porter.admit(stream));
  closers.push(async () => {
    porter.close();
    await listener.close();
  });
  return listener.address;
}

for (const kind of ["threads", "auto"] as const) {
  /** A node by TCP, and the way by which it is asked. */
  const rig = async (t: Test): Promise<{ own: Ground; at: NodeAddress; ask: () => Promise<string> }> => {
    const own = ground(t, kind);
    const at = await door(own, { kind: "tcp", host: HOST, port: 0 }, NODE, 2, "by TCP");
    if (at.kind !== "tcp") throw new Error("not a TCP listener");
    const dial = new Dialer(own.engine, null);
    const ask = async (): Promise<string> => {
      const asked = { address: at, purpose: Purpose.Describe, expected: NODE };
      return (await askText(dial, key(2), asked)).text;
    };
    return { own, at, ask };
  };

  t.test(`${kind}: nobody is there`, async (t) => {
    const { ask } = await rig(t);
    t.equal(await ask(), "by TCP");
  });

  t.test(`${kind}: the node is there`, async (t) => {
    const { own, at, ask } = await rig(t);
    const near = nearby(NODE, at);
    t.match(near, await door(own, near, NODE, 2, "nearby"), "the name is told as it was given");
    // Node cannot reach such a socket by itself.
    t.equal(await ask(), own.engine.kind === "ring" ? "nearby" : "by TCP");
    await t.rejects(
      own.engine.listen(near, () => {}),
      { code: "LISTEN_REFUSED" },
      "the name is taken",
    );
  });

  t.test(`${kind}: another node, or somebody without the key, is there`, async (t) => {
    const first = await rig(t);
    await door(first.own, nearby(NODE, first.at), OTHER, 2, "another node");
    t.equal(await first.ask(), "by TCP");
    const second = await rig(t);
    await door(second.own, nearby(NODE, second.at), NODE, 3, "a stranger");
    t.equal(await second.ask(), "by TCP");
  });

  t.test(
    `${kind}: another user of the machine is there`,
    { skip: process.geteuid?.() !== 0 && "needs root" },
    async (t) => {
      const { own, at, ask } = await rig(t);
      // With the key: it stands for somebody who hands the proofs on to the node, and reads what follows.
      await asUser(STRANGER, () => door(own, nearby(NODE, at), NODE, 2, "a relay"));
      t.equal(await ask(), "by TCP");
    },
  );
}

/** Debian's "nobody". */
const STRANGER = 65_534;

/** The kernel notes who listens at the moment of listen(2), which is before `begin` returns. */
function asUser<T>(user: number, begin: () => Promise<T>): Promise<T> {
  process.seteuid!(user);
  try {
    return begin();
  } finally {
    process.seteuid!(0);
  }
}
