import { execFileSync, spawn } from "node:child_process";
import t, { type Test } from "tap";
import { KIB, MIB } from "../../../lib/core/limits.js";
import type { Engine } from "../../../lib/uring/api.js";
import { openEngine } from "../../../lib/uring/engine.js";
import { probesWithin } from "../../../lib/uring/tcp.js";
import { lacks } from "./support/devices.js";
import { KINDS, ringRefusal } from "./support/engines.js";
import { TestStream } from "./support/streams.js";

// A peer in a network namespace of its own, whose cable is pulled while nothing is on its way.

/** Keep-alive counts whole seconds: two of silence, then probes. */
const SILENCE_MAX_MS = 4000;
const HOST = "203.0.113.1";
const PEER = "203.0.113.2";

t.test("the probes of an idle connection fit into the time that is allowed", async (t) => {
  for (const ms of [6000, 10_000, 30_000, 45_000, 3_600_000]) {
    const { idle, interval } = probesWithin(ms);
    t.ok(idle >= 1 && interval >= 1, `${ms}: ${idle} + 3 × ${interval} s`);
    t.ok(idle + 3 * interval <= ms / 1000, `${ms}: ${idle} + 3 × ${interval} s`);
  }
  // The kernel takes whole seconds, and none of 0.
  t.same(probesWithin(1), { idle: 1, interval: 1 });
});

const lacking = lacks("ip");
const refusal = ringRefusal();
for (const kind of KINDS) {
  const skip = kind === "ring" && refusal !== null ? refusal : lacking;
  t.test(`a pulled cable ends an idle connection (${kind})`, skip === false ? {} : { skip }, async (t) => {
    const engine = openEngine({ kind, poolBytes: MIB, tcpUserTimeoutMs: SILENCE_MAX_MS });
    const cable = pluggedCable(t);
    const stream = await idleConnection(t, engine, cable.namespace);
    const at = engine.pool.allocate(4 * KIB);
    const received = stream.receive(at, 4 * KIB);
    cable.pull();
    t.ok((await received) < 0, "the stream is dead");
    await stream.close();
    await engine.close();
  });
}

function pluggedCable(t: Test): { readonly namespace: string; pull(): void } {
  const namespace = `lamina-${process.pid}`;
  const [ours, theirs] = [`lv${process.pid}`, `lp${process.pid}`];
  const ip = (...args: readonly string[]): void => void execFileSync("ip", args);
  ip("netns", "add", namespace);
  t.teardown(() => ip("netns", "delete", namespace));
  ip("link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", namespace);
  // Gone with the namespace, but only once nothing in it lives.
  t.teardown(() => ip("link", "delete", ours));
  ip("address", "add", `${HOST}/30`, "dev", ours);
  ip("link", "set", ours, "up");
  ip("-n", namespace, "address", "add", `${PEER}/30`, "dev", theirs);
  ip("-n", namespace, "link", "set", theirs, "up");
  return { namespace, pull: () => ip("-n", namespace, "link", "set", theirs, "down") };
}

/** A connection from the namespace that says nothing. */
async function idleConnection(t: Test, engine: Engine, namespace: string): Promise<TestStream> {
  let accepted: (stream: TestStream) => void = () => {};
  const stream = new Promise<TestStream>((resolve) => {
    accepted = resolve;
  });
  const listener = await engine.listen({ kind: "tcp", host: HOST, port: 0 }, (stream) => {
    accepted(new TestStream(stream));
  });
  const { address } = listener;
  if (address.kind !== "tcp") throw new Error("not a TCP listener");
  const script = `require("node:net").connect(${address.port}, "${HOST}")`;
  const peer = spawn("ip", ["netns", "exec", namespace, process.execPath, "-e", script], { stdio: "ignore" });
  t.teardown(async () => {
    const ended = new Promise((resolve) => peer.once("exit", resolve));
    if (peer.exitCode !== null) return;
    peer.kill("SIGKILL");
    await ended;
  });
  const connected = await stream;
  await listener.close();
  return connected;
}
