/**
 * TLS on a real engine: certificates and keys in QEMU's layout, Node's TLS as the client. What is not
 * encrypted, not verified or known to nobody gets nothing.
 */
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { type ConnectionOptions, type TLSSocket, connect as tlsConnect } from "node:tls";
import {
  ClientHandshake,
  ClientTransmission,
  encodeText,
  NBD_CMD_READ,
  NBD_CMD_WRITE,
  NBD_OPT_STARTTLS,
  NBD_OPT_STRUCTURED_REPLY,
  type TlsMode,
} from "nbd-protocol-ts";
import t, { type Test } from "tap";
import { LaminaError } from "../../../lib/core/errors.js";
import { MIB } from "../../../lib/core/limits.js";
import type { SecuredStream, TlsUpgrade } from "../../../lib/gateway/connection.js";
import { createGateway, type LocalGateway } from "../../../lib/gateway/index.js";
import { createTls } from "../../../lib/gateway/tls.js";
import { readTlsCredentials } from "../../../lib/gateway/tls-credentials.js";
import type { Engine } from "../../../lib/uring/api.js";
import { CipherBudget } from "../../../lib/uring/cipher-memory.js";
import { openEngine } from "../../../lib/uring/engine.js";
import { RamVolume, registryOf } from "./support/ram-volume.js";
import { next, pump } from "./support/socket.js";
import { pattern } from "./support/world.js";

const PSK = "0123456789abcdef0123456789abcdef";
const PSK_CIPHERS = "TLS_AES_128_GCM_SHA256:DHE-PSK-AES128-GCM-SHA256:PSK-AES128-GCM-SHA256";

interface Place {
  readonly gateway: LocalGateway;
  readonly engine: Engine;
  readonly port: number;
  readonly directory: string;
  readonly lost: string[];
  readonly identities: readonly Identity[];
}

type Identity = Pick<SecuredStream, "certificate" | "psk">;

function openssl(directory: string, ...args: readonly string[]): void {
  execFileSync("openssl", args, { cwd: directory, stdio: "pipe" });
}

/** An authority, a certificate of the server and one of a client, as the layouts of QEMU and libnbd name them. */
function makeCertificates(directory: string): void {
  const newKey = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  const root = [
    "-x509",
    "-days",
    "2",
    "-keyout",
    "ca-key.pem",
    "-out",
    "ca-cert.pem",
    "-subj",
    "/CN=authority",
  ];
  openssl(directory, ...newKey, ...root);
  for (const [who, name] of [
    ["server", "localhost"],
    ["client", "alice"],
  ]) {
    openssl(directory, ...newKey, "-keyout", `${who}-key.pem`, "-out", `${who}.csr`, "-subj", `/CN=${name}`);
    const signed = ["-CA", "ca-cert.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-days", "2"];
    openssl(directory, "x509", "-req", "-in", `${who}.csr`, "-out", `${who}-cert.pem`, ...signed);
  }
}

async function serve(t: Test, mode: TlsMode, kinds: readonly ("x509" | "psk")[]): Promise<Place> {
  const directory = t.testdir({});
  if (kinds.includes("x509")) makeCertificates(directory);
  if (kinds.includes("psk")) writeFileSync(join(directory, "keys.psk"), `# keys\nqemu:${PSK}\n`);
  const engine = openEngine({ kind: "auto", poolBytes: 16 * MIB });
  const volume = new RamVolume(engine.pool, engine, 4 * MIB);
  const lost: string[] = [];
  const identities: Identity[] = [];
  const gateway = createGateway({
    engine,
    registry: registryOf(volume),
    tls: noting(createTls({ mode, directory }, new CipherBudget(engine.pool)), identities),
    onConnectionLost: (_peer, _volume, reason) => lost.push(reason),
  });
  const { address } = await gateway.listen({ kind: "tcp", host: "127.0.0.1", port: 0 });
  if (address.kind !== "tcp") throw new Error("not a TCP listener");
  return { gateway, engine, port: address.port, directory, lost, identities };
}

/** The same, keeping whom each client was found to be. */
function noting(tls: TlsUpgrade, identities: Identity[]): TlsUpgrade {
  return {
    mode: tls.mode,
    upgrade: (stream, done) =>
      tls.upgrade(stream, (secured, reason) => {
        if (secured !== null) identities.push(secured);
        done(secured, reason);
      }),
  };
}

async function takeDown(t: Test, { gateway, engine }: Place): Promise<void> {
  await gateway.close();
  t.equal(engine.pool.freeBytes, engine.pool.capacityBytes, "the pool is free");
  await engine.close();
}

/** Writes and reads 3 MiB through TLS; returns the encrypted socket, or throws. */
async function useExport(port: number, options: ConnectionOptions): Promise<TLSSocket> {
  const raw = connect(port, "127.0.0.1");
  const handshake = new ClientHandshake({ exportName: "v", tls: "require" });
  await pump(raw, handshake, () => handshake.state === "starttls");
  const secure = tlsConnect({ socket: raw, checkServerIdentity: () => undefined, ...options });
  secure.on("error", () => {});
  await Promise.race([
    once(secure, "secureConnect"),
    once(secure, "close").then(() => Promise.reject(new Error("TLS was refused"))),
  ]);
  handshake.tlsEstablished();
  secure.write(handshake.takeOutput());
  await pump(secure, handshake, () => handshake.state === "transmission");
  await exchange(secure, handshake);
  return secure;
}

async function exchange(socket: Socket, handshake: ClientHandshake): Promise<void> {
  const length = 3 * MIB;
  const content = pattern(0, length);
  const read = new Uint8Array(length);
  let done = 0;
  const machine = new ClientTransmission(
    handshake.negotiated!,
    {
      readData: (_request, offset, bytes, start, end) => read.set(bytes.subarray(start, end), offset),
      readHole: (_request, offset, count) => read.fill(0, offset, offset + count),
      blockStatus: () => {},
      requestDone: (request) => {
        if (request.errno !== 0) throw new Error(`errno ${request.errno}`);
        done++;
      },
    },
    4,
  );
  const ask = async (type: number, flags: number, payload: Uint8Array | null): Promise<void> => {
    const header = new Uint8Array(machine.requestBytes);
    machine.begin(new DataView(header.buffer), 0, type, flags, 0, length);
    socket.write(header);
    if (payload !== null) socket.write(payload);
    const before = done;
    while (done === before) {
      machine.feed(await next(socket));
      if (machine.dead) throw new Error(machine.reason);
    }
  };
  await ask(NBD_CMD_WRITE, 1 << 5, content);
  await ask(NBD_CMD_READ, 0, null);
  if (!Buffer.from(read).equals(content)) throw new Error("other bytes came back");
}

void t.test("certificates on both sides: the client's name is known", async (t) => {
  const place = await serve(t, "forced", ["x509"]);
  const file = (name: string): Buffer => readFileSync(join(place.directory, name));
  for (const maxVersion of ["TLSv1.3", "TLSv1.2"] as const) {
    const options = { ca: file("ca-cert.pem"), cert: file("client-cert.pem"), key: file("client-key.pem") };
    const socket = await useExport(place.port, { ...options, maxVersion });
    const [session] = place.gateway.sessions();
    t.equal(session!.identity, "alice");
    t.ok(session!.tls);
    socket.destroy();
  }
  await t.rejects(useExport(place.port, { ca: file("ca-cert.pem") }), "without a certificate");
  await takeDown(t, place);
});

void t.test("pre-shared keys: the identity is known, a wrong key is refused", async (t) => {
  const place = await serve(t, "selective", ["psk"]);
  const withKey = (identity: string, psk: string): ConnectionOptions => ({
    pskCallback: () => ({ identity, psk: Buffer.from(psk, "hex") }),
    ciphers: PSK_CIPHERS,
  });
  for (const maxVersion of ["TLSv1.3", "TLSv1.2"] as const) {
    const socket = await useExport(place.port, { ...withKey("qemu", PSK), maxVersion });
    t.equal(place.gateway.sessions()[0]!.identity, "qemu");
    socket.destroy();
  }
  await t.rejects(useExport(place.port, withKey("qemu", "00".repeat(16))));
  await t.rejects(useExport(place.port, withKey("mallory", PSK)));
  await takeDown(t, place);
});

void t.test("an identity that is named but whose key is not used is nobody's", async (t) => {
  const place = await serve(t, "forced", ["x509", "psk"]);
  const file = (name: string): Buffer => readFileSync(join(place.directory, name));
  // The key is one of SHA-256: with this suite alone TLS 1.3 leaves it aside, and no binder is checked.
  const unproved: ConnectionOptions = {
    pskCallback: () => ({ identity: "qemu", psk: Buffer.alloc(16) }),
    ciphers: "TLS_AES_256_GCM_SHA384",
    ca: file("ca-cert.pem"),
  };
  await t.rejects(useExport(place.port, unproved), "without a certificate");
  const certificate = { cert: file("client-cert.pem"), key: file("client-key.pem") };
  const socket = await useExport(place.port, { ...unproved, ...certificate });
  t.equal(place.gateway.sessions()[0]!.identity, "alice");
  const { certificate: name, psk } = place.identities.at(-1)!;
  t.same({ name, psk }, { name: "alice", psk: null });
  socket.destroy();
  await takeDown(t, place);
});

void t.test("forced: without TLS nothing is answered but that it is required", async (t) => {
  const place = await serve(t, "forced", ["psk"]);
  const raw = connect(place.port, "127.0.0.1");
  const handshake = new ClientHandshake({ exportName: "v" });
  await t.rejects(
    pump(raw, handshake, () => handshake.state === "transmission"),
    /TLS/,
  );
  raw.destroy();
  await takeDown(t, place);
});

void t.test("bytes that were pipelined behind STARTTLS end the connection (CVE-2021-3716)", async (t) => {
  const place = await serve(t, "selective", ["psk"]);
  const raw = connect(place.port, "127.0.0.1");
  raw.write(Uint8Array.of(0, 0, 0, 3));
  raw.write(Buffer.concat([option(NBD_OPT_STARTTLS), option(NBD_OPT_STRUCTURED_REPLY)]));
  raw.resume();
  await once(raw, "close");
  t.match(place.lost[0], /plaintext/);
  await takeDown(t, place);
});

void t.test("a client that never begins TLS is closed with the server", async (t) => {
  const place = await serve(t, "selective", ["psk"]);
  const raw = connect(place.port, "127.0.0.1");
  raw.write(Uint8Array.of(0, 0, 0, 3));
  raw.write(option(NBD_OPT_STARTTLS));
  const closed = once(raw, "close");
  await once(raw, "data");
  raw.resume();
  await new Promise((resolve) => setTimeout(resolve, 50));
  await takeDown(t, place);
  await closed;
  t.end();
});

void t.test("files that do not do are refused by name", (t) => {
  const empty = t.testdir({});
  t.throws(() => readTlsCredentials(empty), { code: "TLS_FILES" });
  const shortKey = join(empty, "keys.psk");
  writeFileSync(shortKey, "a:00\n");
  t.throws(() => readTlsCredentials(empty), /line 1/);
  writeFileSync(shortKey, "nonsense\n");
  t.throws(() => readTlsCredentials(empty), LaminaError);
  writeFileSync(join(empty, "server-cert.pem"), "x");
  t.throws(() => readTlsCredentials(empty), /keys.psk|belong together/);
  t.end();
});

function option(number: number): Uint8Array {
  const bytes = new Uint8Array(16);
  bytes.set(encodeText("IHAVEOPT"));
  new DataView(bytes.buffer).setUint32(8, number);
  return bytes;
}
