/** Links over TLS: nobody without a certificate is heard, nothing is said in plaintext, nobody stands in between. */
import { chmodSync, cpSync, mkdirSync, rmSync } from "node:fs";
import { connect as connectPlain, createServer as createPlain, type Socket } from "node:net";
import { connect as connectTls, createServer as createTls, type TLSSocket } from "node:tls";
import t, { type Test } from "tap";
import { askText, type DialEnvironment } from "../../../lib/cluster/dial.js";
import { type ClusterKey, keyOf } from "../../../lib/cluster/key.js";
import { readLinkCredentials } from "../../../lib/cluster/link-credentials.js";
import { Dialer, LinkTls } from "../../../lib/cluster/link-tls.js";
import { PRELUDES_MAX, Purpose } from "../../../lib/cluster/prelude.js";
import type { ByteStream } from "../../../lib/core/stream.js";
import type { Engine } from "../../../lib/uring/api.js";
import { CipherBudget } from "../../../lib/uring/cipher-memory.js";
import { removeScratch, scratchDirectory } from "../../interop/support/scratch.js";
import { makeAuthority } from "../../interop/support/tls.js";
import { until } from "../../interop/support/until.js";
import { HOST, NODE, serve } from "./support/served.js";

const HANDSHAKE_RECORD = 22;
const ALERT_RECORD = 21;

const scratch = scratchDirectory();
t.teardown(() => removeScratch(scratch));
const ours = await makeAuthority(scratch, "ours");
const theirs = await makeAuthority(scratch, "theirs");
const node = await ours.issue("link", "node");
const gateway = await ours.issue("link", "gateway");
const elsewhere = await ours.issue("link", "elsewhere", "IP:127.0.0.9");
const stranger = await theirs.issue("link", "stranger");
/** Believes in our authority, and shows a certificate of another one. */
const outsider = `${scratch}/outsider`;
cpSync(stranger, outsider, { recursive: true });
rmSync(`${outsider}/ca-cert.pem`);
cpSync(`${ours.directory}/ca-cert.pem`, `${outsider}/ca-cert.pem`);
const own = await ours.issue("server", "no-client");

function key(secret: number): ClusterKey {
  return keyOf(new Uint8Array(16).fill(1), new Uint8Array(32).fill(secret));
}

interface Rig {
  readonly engine: Engine;
  readonly port: number;
  readonly sessions: ByteStream[];
  readonly refused: string[];
  /** Ways to the node with the credentials of a directory; null: plain. */
  dial(directory: string | null): DialEnvironment;
}

/** A node that shows what is in `directory`; null: its links are plain. */
async function rig(t: Test, directory: string | null): Promise<Rig> {
  const sessions: ByteStream[] = [];
  const refused: string[] = [];
  const { engine, address } = await serve(
    t,
    (engine) => ({
      key: key(2),
      tls:
        directory === null
          ? null
          : new LinkTls(engine.clock, new CipherBudget(engine.pool), readLinkCredentials(directory)),
    }),
    {
      session: (stream) => sessions.push(stream),
      describe: () => "described",
      records: () => "r".repeat(300_000),
      refused: (_stream, why) => refused.push(why),
    },
    64,
  );
  const dial = (of: string | null): DialEnvironment =>
    new Dialer(
      engine,
      of === null ? null : new LinkTls(engine.clock, new CipherBudget(engine.pool), readLinkCredentials(of)),
    );
  return { engine, port: address.port, sessions, refused, dial };
}

function asked(port: number, purpose: Purpose = Purpose.Describe) {
  return { address: { kind: "tcp", host: HOST, port }, purpose, expected: NODE } as const;
}

t.test("who has a certificate and the key is told, over TLS", async (t) => {
  const { port, dial, refused } = await rig(t, node);
  const described = await askText(dial(gateway), key(2), asked(port));
  t.same(described, { node: NODE, text: "described" });
  const records = await askText(dial(gateway), key(2), asked(port, Purpose.Records));
  t.equal(records.text.length, 300_000, "also what is longer than a buffer");
  t.same(refused, []);
});

t.test("a certificate is not instead of the key", async (t) => {
  const { port, dial, sessions } = await rig(t, node);
  await t.rejects(askText(dial(gateway), key(3), asked(port, Purpose.Session)), {
    code: "CLUSTER_KEY_WRONG",
  });
  t.same(sessions, []);
});

t.test("the key is not instead of a certificate, at either end", async (t) => {
  const { port, dial, refused, sessions } = await rig(t, node);
  const lost = { code: "CONNECT_REFUSED" };
  await t.rejects(
    askText(dial(outsider), key(2), asked(port, Purpose.Session)),
    lost,
    "of another authority",
  );
  const foreign = await rig(t, stranger);
  await t.rejects(
    askText(dial(gateway), key(2), asked(foreign.port)),
    lost,
    "the node is of another authority",
  );
  const other = await rig(t, elsewhere);
  await t.rejects(askText(dial(gateway), key(2), asked(other.port)), {
    ...lost,
    message: /127\.0\.0\.1/,
  });
  await until("the node says that it turned somebody away", () => refused.length > 0);
  t.match(refused, [/certificate/]);
  t.same([...sessions, ...foreign.sessions, ...other.sessions], []);
});

t.test("without TLS nobody is heard where there is TLS, nor the other way round", async (t) => {
  const { port, dial, refused, sessions } = await rig(t, node);
  await t.rejects(askText(dial(null), key(2), asked(port, Purpose.Session)), { code: "CONNECT_REFUSED" });
  await until("the node says that it turned somebody away", () => refused.length > 0);
  t.match(refused, [/^TLS failed: /]);
  t.same(sessions, []);
  const plain = await rig(t, null);
  await t.rejects(askText(dial(gateway), key(2), asked(plain.port)), { code: "CONNECT_REFUSED" });
  t.same(plain.sessions, []);
  t.equal((await askText(dial(null), key(2), asked(plain.port))).text, "described");
});

t.test("a node with TLS answers with records of TLS only, whatever it is sent", async (t) => {
  const { port } = await rig(t, node);
  const ask = Buffer.alloc(40, 7);
  ask.set([0x4c, 0x6e, 0x41, 0x75, 1, 0, 1, 0]);
  const answer = await new Promise<Buffer>((resolve) => {
    const parts: Buffer[] = [];
    const socket = connectPlain(port, HOST, () => socket.write(ask));
    socket.on("data", (bytes) => parts.push(bytes));
    socket.on("error", () => {});
    socket.on("close", () => resolve(Buffer.concat(parts)));
  });
  t.ok(answer.length === 0 || answer[0] === ALERT_RECORD || answer[0] === HANDSHAKE_RECORD);
});

/** Hands on what comes to `port`, decrypted and encrypted anew if it has `credentials`. Resolves with its own port. */
async function standBetween(t: Test, port: number, directory: string | null) {
  const options = directory === null ? null : readLinkCredentials(directory);
  const open: (Socket | TLSSocket)[] = [];
  let bytes = 0;
  const join = (from: Socket): void => {
    const onward =
      options === null
        ? connectPlain(port, HOST)
        : connectTls({ ...options, host: HOST, port, rejectUnauthorized: true });
    open.push(from, onward);
    for (const end of [from, onward])
      end.on("error", () => {}).on("close", () => open.map((one) => one.destroy()));
    from.on("data", (part) => onward.write(part));
    onward.on("data", (part: Buffer) => {
      bytes += part.length;
      from.write(part);
    });
  };
  const server =
    options === null
      ? createPlain(join)
      : createTls({ ...options, requestCert: true, rejectUnauthorized: true }, join);
  await new Promise<void>((resolve) => server.listen(0, HOST, resolve));
  t.teardown(() => {
    for (const one of open) one.destroy();
    return new Promise<void>((resolve) => void server.close(() => resolve()));
  });
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("it listens on TCP");
  return { port: address.port, bytes: () => bytes };
}

t.test("somebody in between who has a certificate and no key cannot hand the proofs on", async (t) => {
  const { port, dial, sessions } = await rig(t, node);
  const between = await standBetween(t, port, gateway);
  await t.rejects(askText(dial(gateway), key(2), asked(between.port)), { code: "CLUSTER_KEY_WRONG" });
  t.ok(between.bytes() > 0, "it had handed the node's answer on");
  t.same(sessions, []);
});

t.test("without TLS somebody in between can", async (t) => {
  const { port, dial } = await rig(t, null);
  const between = await standBetween(t, port, null);
  const { text } = await askText(dial(null), key(2), asked(between.port));
  t.equal(text, "described", "so the test above would notice a proof that does not cover the connection");
});

t.test("connections that say nothing are bounded, also before TLS", async (t) => {
  const { port, dial } = await rig(t, node);
  const silent: Socket[] = [];
  t.teardown(() => {
    for (const socket of silent) socket.destroy();
  });
  for (let i = 0; i < PRELUDES_MAX; i++) {
    const socket = connectPlain(port, HOST);
    socket.on("error", () => {});
    silent.push(socket);
    await new Promise<void>((resolve) => void socket.once("connect", resolve));
  }
  await t.rejects(askText(dial(gateway), key(2), asked(port)), { code: "CONNECT_REFUSED" });
  for (const socket of silent) socket.destroy();
  let told = false;
  while (!told)
    told = await askText(dial(gateway), key(2), asked(port)).then(
      () => true,
      () => false,
    );
  t.ok(told, "and there is room again when they have gone");
});

t.test("a connection that comes about when the process has stopped is nobody's", async (t) => {
  const { engine, port } = await rig(t, node);
  const dialer = new Dialer(
    engine,
    new LinkTls(engine.clock, new CipherBudget(engine.pool), readLinkCredentials(gateway)),
  );
  let outcome = "none";
  const connecting = dialer.connect({ kind: "tcp", host: HOST, port }).then(
    () => (outcome = "connected"),
    () => (outcome = "refused"),
  );
  dialer.stop();
  const pause = new Promise((resolve) => setTimeout(resolve, 500));
  await Promise.race([connecting, pause]);
  t.equal(outcome, "none", "nobody is told, and no memory is touched");
});

t.test("files that cannot be used are refused by name", (t) => {
  const empty = `${scratch}/empty`;
  mkdirSync(empty);
  t.throws(() => readLinkCredentials(empty), { code: "LINK_TLS_FILES", message: /link-cert\.pem/ });
  t.throws(() => readLinkCredentials(own), { code: "LINK_TLS_FILES" }, "a certificate for something else");
  chmodSync(`${stranger}/link-key.pem`, 0o644);
  t.throws(() => readLinkCredentials(stranger), {
    code: "LINK_TLS_FILES",
    message: /may read link-key\.pem/,
  });
  t.end();
});
