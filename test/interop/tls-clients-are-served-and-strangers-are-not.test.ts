/** TLS as Debian's clients speak it (GnuTLS): certificates, pre-shared keys, and everybody else. */
import { copyFileSync, existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t, { type Test } from "tap";
import { check, run } from "./support/process.js";
import { requires } from "./support/requirements.js";
import { LAMINA, LaminaServer } from "./support/server.js";
import { makeAuthority, makeKeys } from "./support/tls.js";
import { until } from "./support/until.js";

const SIZE = "8M";
const TOOLS = requires({ commands: ["nbdinfo", "nbdcopy", "qemu-img", "openssl"], lamina: true });

async function serve(t: Test, args: readonly string[]): Promise<LaminaServer> {
  const server = new LaminaServer({ capacity: "1G", args: ["--redis", "none", ...args] });
  t.teardown(async () => server.dispose());
  await server.start();
  return server;
}

/** Bytes that are not zeros, in a file. */
async function image(t: Test): Promise<string> {
  const path = join(t.testdir({}), "image");
  await check("openssl", ["rand", "-out", path, String(8 * 2 ** 20)]);
  return path;
}

/** In through one client's TLS and out through another's. */
async function roundTrip(t: Test, uri: string, qemu: readonly string[]): Promise<void> {
  const source = await image(t);
  await check("nbdcopy", ["--flush", source, uri]);
  const copy = `${source}.copy`;
  await check("nbdcopy", [uri, copy]);
  t.ok(readFileSync(source).equals(readFileSync(copy)), "nbdcopy reads what it wrote");
  await check("qemu-img", ["convert", "-O", "raw", ...qemu, copy]);
  t.ok(readFileSync(source).equals(readFileSync(copy)), "qemu-img reads the same");
}

/** In and out through our own command: raw in, qcow2 out and in again, raw out. */
async function transferRoundTrip(t: Test, server: LaminaServer, tls: readonly string[]): Promise<void> {
  const source = await image(t);
  await server.lamina("volume", "import", "copy", source, ...tls);
  await server.lamina("volume", "export", "copy", `${source}.qcow2`, "--format", "qcow2", ...tls);
  await server.lamina("volume", "import", "again", `${source}.qcow2`, "--format", "qcow2", ...tls);
  await server.lamina("volume", "export", "again", `${source}.again`, ...tls);
  t.ok(readFileSync(source).equals(readFileSync(`${source}.again`)));
  for (const name of ["copy", "again"]) await server.lamina("volume", "rm", name);
}

const size = (uri: string) => run("nbdinfo", ["--size", uri]);

t.test("X.509", TOOLS, async (t) => {
  const place = t.testdir({});
  const ours = await makeAuthority(place, "ours");
  const theirs = await makeAuthority(place, "theirs");
  const [serverKeys, alice, mallory] = [
    await ours.issue("server", "localhost"),
    await ours.issue("client", "alice"),
    await theirs.issue("client", "alice"),
  ];
  const server = await serve(t, ["--tls", "require", "--tls-dir", serverKeys]);
  await server.createVolume("v", SIZE);
  const { port } = server;
  const uri = (keys: string): string => `nbds://localhost:${port}/v?tls-certificates=${keys}`;
  t.match(server.program.stdout, /^lamina ready nbds:\/\/127\.0\.0\.1:\d+$/m);

  await t.test("the authority's client is served", (t) =>
    roundTrip(t, uri(alice), [
      ...["--object", `tls-creds-x509,id=tls0,endpoint=client,dir=${alice}`],
      "--image-opts",
      `driver=nbd,host=localhost,port=${port},export=v,tls-creds=tls0`,
    ]),
  );

  await t.test("both versions of TLS, and no older one", async (t) => {
    const info = (version: string) => {
      const priority = `priority=NORMAL:-VERS-ALL:+VERS-TLS${version}`;
      const credentials = `tls-creds-x509,id=tls0,endpoint=client,dir=${alice},${priority}`;
      const node = `driver=nbd,host=localhost,port=${port},export=v,tls-creds=tls0`;
      return run("qemu-img", ["info", "--object", credentials, "--image-opts", node]);
    };
    for (const version of ["1.3", "1.2"]) {
      const { code, stdout, stderr } = await info(version);
      t.equal(code, 0, stderr);
      t.match(stdout, /8388608 bytes/, version);
    }
    t.not((await info("1.1")).code, 0, "1.1");
  });

  await t.test("without TLS", async (t) => {
    const { code, stderr } = await size(`nbd://localhost:${port}/v`);
    t.not(code, 0);
    t.match(stderr, /TLS/);
    const listed = await run("nbdinfo", ["--list", `nbd://localhost:${port}/`]);
    t.not(listed.code, 0);
    t.notMatch(listed.stdout, /"?v"?:/);
    const qemu = await run("qemu-img", ["info", `nbd://127.0.0.1:${port}/v`]);
    t.not(qemu.code, 0);
  });

  await t.test("a client of another authority", async (t) => {
    // It believes our server, and shows what it has: only the server can refuse.
    rmSync(join(mallory, "ca-cert.pem"));
    copyFileSync(join(alice, "ca-cert.pem"), join(mallory, "ca-cert.pem"));
    t.not((await size(uri(mallory))).code, 0);
    const anonymous = join(place, "anonymous");
    await check("mkdir", [anonymous]);
    copyFileSync(join(alice, "ca-cert.pem"), join(anonymous, "ca-cert.pem"));
    t.not((await size(uri(anonymous))).code, 0, "one without a certificate");
    t.equal((await size(uri(alice))).code, 0, "the server lives");
  });

  await t.test("CVE-2024-7383: lamina volume import and export verify the server", async (t) => {
    await transferRoundTrip(t, server, ["--tls-certificates", alice]);
    const target = join(t.testdir({}), "x.img");
    const exported = (...args: string[]) =>
      run(LAMINA, ["volume", "export", "v", target, "--data", server.data, ...args]);
    const plain = await exported();
    t.equal(plain.code, 1);
    t.match(plain.stderr, /over TLS only/, "without TLS it says what to do");
    const stranger = await exported("--tls-certificates", mallory);
    t.equal(stranger.code, 1, "a client of another authority");
    const gullible = await theirs.issue("client", "gullible");
    const deceived = await exported("--tls-certificates", gullible);
    t.equal(deceived.code, 1);
    t.match(deceived.stderr, /certificate/, "a server of another authority");
    t.notOk(existsSync(target), "nothing was written");
  });

  await t.test("SIGHUP", async (t) => {
    const next = await makeAuthority(place, "next");
    const [newKeys, bob] = [await next.issue("server", "localhost"), await next.issue("client", "bob")];
    t.not((await size(uri(bob))).code, 0, "not yet");
    writeFileSync(join(serverKeys, "server-key.pem"), "no key\n");
    process.kill(server.pid, "SIGHUP");
    await until("it says that the old files stay", () =>
      /old TLS files stay in use/.test(server.program.stderr),
    );
    t.equal((await size(uri(alice))).code, 0, "files that cannot be used change nothing");
    rmSync(join(serverKeys, "ca-cert.pem"));
    for (const name of ["server-key.pem", "server-cert.pem", "ca-cert.pem"]) {
      copyFileSync(join(newKeys, name), join(serverKeys, name));
    }
    process.kill(server.pid, "SIGHUP");
    await until("it says that they were read", () => /were read anew/.test(server.program.stderr));
    t.equal((await size(uri(bob))).code, 0, "the new authority's client");
    t.not((await size(uri(alice))).code, 0, "the old one's");
  });

  await server.stop();
});

t.test("pre-shared keys", TOOLS, async (t) => {
  const place = t.testdir({});
  const keys = join(place, "keys.psk");
  await makeKeys(keys, ["alice", "bob"]);
  const server = await serve(t, ["--tls", "require", "--tls-dir", place]);
  await server.createVolume("v", SIZE);
  const { port } = server;
  const uri = (name: string, file = keys): string =>
    `nbds://${name}@localhost:${port}/v?tls-psk-file=${file}`;

  await t.test("a client with a key is served", (t) =>
    roundTrip(t, uri("alice"), [
      ...["--object", `tls-creds-psk,id=tls0,endpoint=client,dir=${place},username=bob`],
      "--image-opts",
      `driver=nbd,host=localhost,port=${port},export=v,tls-creds=tls0`,
    ]),
  );

  await t.test("lamina volume import and export", async (t) => {
    await transferRoundTrip(t, server, ["--tls-psk-file", keys, "--tls-username", "bob"]);
    const wrong = join(t.testdir({}), "one.psk");
    await makeKeys(wrong, ["alice"]);
    const target = join(t.testdir({}), "x.img");
    const args = ["--data", server.data, "--tls-psk-file", wrong];
    t.equal((await run(LAMINA, ["volume", "export", "v", target, ...args])).code, 1, "a wrong key");
  });

  await t.test("a wrong key, and an identity that nobody has", async (t) => {
    const wrong = join(t.testdir({}), "wrong.psk");
    await makeKeys(wrong, ["alice", "mallory"]);
    t.not((await size(uri("alice", wrong))).code, 0);
    t.not((await size(uri("mallory", wrong))).code, 0);
    t.equal((await size(uri("alice"))).code, 0);
  });

  await server.stop();
});

t.test("--tls allow: in plaintext as well as encrypted", TOOLS, async (t) => {
  const place = t.testdir({});
  await makeKeys(join(place, "keys.psk"), ["alice"]);
  const server = await serve(t, ["--tls", "allow", "--tls-dir", place]);
  await server.createVolume("v", SIZE);
  t.match(server.program.stdout, /^lamina ready nbd:\/\//m);
  t.equal((await size(server.uri("v"))).code, 0);
  t.equal((await size(`nbds://alice@localhost:${server.port}/v?tls-psk-file=${place}/keys.psk`)).code, 0);
  await server.stop();
});
