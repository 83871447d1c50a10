/** Access lists: who is not named sees nothing, who may read cannot write, and what is open stays on loopback. */
import { writeFileSync } from "node:fs";
import { networkInterfaces } from "node:os";
import { join } from "node:path";
import t, { type Test } from "tap";
import { metrics, metricValue } from "./support/metrics.js";
import { NbdClient, NbdError } from "./support/nbd-client.js";
import { check, describe, run } from "./support/process.js";
import { requires } from "./support/requirements.js";
import { LAMINA, LaminaServer } from "./support/server.js";
import { makeAuthority, makeKeys } from "./support/tls.js";

const TOOLS = requires({ commands: ["nbdinfo", "nbdcopy", "qemu-io", "openssl"], lamina: true });
/** NBD_EPERM */
const EPERM_NUMBER = 1;
const EPERM = /Operation not permitted|read-only|Permission denied/i;

interface Place {
  readonly server: LaminaServer;
  readonly directory: string;
  uri(identity: string, volume: string): string;
}

async function serve(t: Test, mode: "allow" | "require", more: readonly string[] = []): Promise<Place> {
  const directory = t.testdir({});
  await makeKeys(join(directory, "keys.psk"), ["alice", "bob", "eve"]);
  const tls = ["--tls", mode, "--tls-dir", directory];
  const server = new LaminaServer({ capacity: "1G", args: ["--redis", "none", ...tls, ...more] });
  t.teardown(async () => server.dispose());
  await server.start();
  const uri = (identity: string, volume: string): string =>
    `nbds://${identity}@localhost:${server.port}/${volume}?tls-psk-file=${directory}/keys.psk`;
  return { server, directory, uri };
}

async function listed(uri: string): Promise<string[]> {
  const text = await check("nbdinfo", ["--list", "--json", "--no-content", uri]);
  const { exports } = JSON.parse(text) as { exports: readonly { readonly "export-name": string }[] };
  return exports.map((each) => each["export-name"]).sort();
}

/** nbdinfo ends with 0 for yes and 2 for no. */
async function isReadOnly(uri: string): Promise<boolean> {
  const result = await run("nbdinfo", ["--is", "read-only", uri]);
  if (result.code !== 0 && result.code !== 2) throw new Error(describe("nbdinfo --is", [uri], result));
  return result.code === 0;
}

t.test("names, reading and writing by identity", TOOLS, async (t) => {
  const { server, directory, uri } = await serve(t, "require");
  const create = (name: string, ...rules: string[]) =>
    server.lamina("volume", "create", name, "--size", "4M", ...rules.flatMap((rule) => ["--allow", rule]));
  await create("open");
  await create("hers", "psk:alice");
  await create("shared", "psk:alice", "psk:bob:ro");

  t.same(await listed(uri("alice", "")), ["hers", "open", "shared"]);
  t.same(await listed(uri("bob", "")), ["open", "shared"]);
  t.same(await listed(uri("eve", "")), ["open"]);

  const hidden = await run("nbdinfo", ["--size", uri("bob", "hers")]);
  const absent = await run("nbdinfo", ["--size", uri("bob", "nope")]);
  t.not(hidden.code, 0);
  const nameless = ({ stderr }: { stderr: string }) => stderr.replaceAll(/hers|nope/g, "NAME");
  t.equal(nameless(hidden), nameless(absent), "hidden is told like absent");

  t.notOk(await isReadOnly(uri("alice", "shared")));
  t.ok(await isReadOnly(uri("bob", "shared")), "advertised as read-only");
  const image = join(directory, "image");
  await check("openssl", ["rand", "-out", image, String(4 * 2 ** 20)]);
  await check("nbdcopy", [image, uri("alice", "shared")]);
  const before = await check("sh", ["-c", 'nbdcopy "$1" - | sha256sum', "sh", uri("bob", "shared")]);
  const write = await run("nbdcopy", [image, uri("bob", "shared")]);
  t.not(write.code, 0);
  t.match(write.stderr, EPERM);
  t.equal(await check("sh", ["-c", 'nbdcopy "$1" - | sha256sum', "sh", uri("bob", "shared")]), before);

  await t.test("a changed list holds for the next connection", async (t) => {
    await server.lamina("volume", "set", "hers", "--allow", "psk:bob");
    t.same(await listed(uri("alice", "")), ["open", "shared"]);
    t.same(await listed(uri("bob", "")), ["hers", "open", "shared"]);
    const shown = await server.lamina("volume", "show", "hers");
    t.match(shown, /^access +psk:bob$/m);
    await server.lamina("volume", "set", "hers", "--no-allow");
    t.match(await server.lamina("volume", "show", "hers"), /^access +everyone who can connect$/m);
    t.same(await listed(uri("eve", "")), ["hers", "open"]);
  });

  await t.test("it outlives a restart", async (t) => {
    await server.stop();
    await server.start();
    t.same(await listed(uri("eve", "")), ["hers", "open"]);
    t.ok(await isReadOnly(uri("bob", "shared")));
  });
  await server.stop();
});

t.test("a write to a read-only grant is refused by the server, not only by the client", TOOLS, async (t) => {
  const { server } = await serve(t, "allow");
  await server.lamina("volume", "create", "v", "--size", "4M", "--allow", "address:127.0.0.1:ro");
  // qemu-io believes the flag and refuses by itself; the other client does not look at it.
  const opened = await run("qemu-io", ["-f", "raw", "-c", "write 0 4k", server.uri("v")]);
  t.match(opened.stdout + opened.stderr, EPERM, describe("qemu-io", [], opened));
  const client = await NbdClient.connect(server.host, server.port, "v");
  await t.rejects(client.write(0, Buffer.alloc(4096, 1)), new NbdError(EPERM_NUMBER));
  await t.rejects(client.zero(0, 4096), new NbdError(EPERM_NUMBER));
  await t.rejects(client.trim(0, 4096), new NbdError(EPERM_NUMBER));
  t.ok((await client.read(0, 4096)).equals(Buffer.alloc(4096)), "nothing was written");
  await client.close();
  await server.stop();
});

t.test("a changed list holds for open connections", TOOLS, async (t) => {
  const { server } = await serve(t, "allow");
  const set = (...rules: string[]) =>
    server.lamina("volume", "set", "v", ...rules.flatMap((rule) => ["--allow", rule]));
  await server.lamina("volume", "create", "v", "--size", "4M");
  const writer = await NbdClient.connect(server.host, server.port, "v");
  await writer.write(0, Buffer.alloc(4096, 1));
  await set("address:127.0.0.1");
  await writer.write(0, Buffer.alloc(4096, 2));
  await set("address:127.0.0.1:ro");
  await t.rejects(writer.write(0, Buffer.alloc(4096, 3)), "who was promised writing is disconnected");
  writer.destroy();
  const reader = await NbdClient.connect(server.host, server.port, "v");
  t.ok((await reader.read(0, 4096)).equals(Buffer.alloc(4096, 2)), "what it had no right to was not written");
  await set("psk:alice");
  await t.rejects(reader.read(0, 4096), "who may nothing is disconnected");
  reader.destroy();
  t.not((await run("nbdinfo", ["--size", server.uri("v")])).code, 0, "and does not come back");
  const withdrawn = metricValue(await metrics(server.data), "lamina_gateway_rights_withdrawn_total");
  t.equal(withdrawn, 2);
  await server.stop();
});

t.test("addresses; and rules for identities mean TLS", TOOLS, async (t) => {
  const { server, uri } = await serve(t, "allow");
  const create = (name: string, ...rules: string[]) =>
    server.lamina("volume", "create", name, "--size", "4M", ...rules.flatMap((rule) => ["--allow", rule]));
  await create("here", "address:127.0.0.0/8");
  await create("there", "address:10.0.0.0/8");
  await create("either", "psk:alice", "address:127.0.0.1");
  const plain = `nbd://127.0.0.1:${server.port}/`;
  t.same(await listed(plain), ["here"]);
  const refused = await run("nbdinfo", ["--size", `${plain}either`]);
  t.not(refused.code, 0);
  t.match(refused.stderr, /TLS/, "it is not served in plaintext");
  t.same(await listed(uri("alice", "")), ["either", "here"]);
  t.same(await listed(uri("eve", "")), ["either", "here"], "her address is named, and she came over TLS");
  await server.stop();
});

t.test("certificates by name", TOOLS, async (t) => {
  const authority = await makeAuthority(t.testdir({}), "authority");
  const [keys, alice, bob] = [
    await authority.issue("server", "localhost"),
    await authority.issue("client", "alice"),
    await authority.issue("client", "bob"),
  ];
  const tls = ["--tls", "require", "--tls-dir", keys];
  const server = new LaminaServer({ capacity: "1G", args: ["--redis", "none", ...tls] });
  t.teardown(async () => server.dispose());
  await server.start();
  await server.lamina("volume", "create", "v", "--size", "4M", "--allow", "cert:alice");
  const uri = (own: string, volume: string): string =>
    `nbds://localhost:${server.port}/${volume}?tls-certificates=${own}`;
  t.same(await listed(uri(alice, "")), ["v"]);
  t.equal((await check("nbdinfo", ["--size", uri(alice, "v")])).trim(), String(4 * 2 ** 20));
  t.same(await listed(uri(bob, "")), []);
  t.not((await run("nbdinfo", ["--size", uri(bob, "v")])).code, 0);
  await server.stop();
});

/** An address of this machine that is not loopback; its traffic stays on the machine all the same. */
function outerAddress(): string | null {
  for (const addresses of Object.values(networkInterfaces())) {
    for (const { address, family, internal } of addresses ?? []) {
      if (!internal && family === "IPv4") return address;
    }
  }
  return null;
}

const OUTER = outerAddress();
const OUTSIDE = OUTER === null ? { skip: "this machine has no address but loopback" } : TOOLS;

t.test("beyond loopback every volume has a list", OUTSIDE, async (t) => {
  const { server, uri } = await serve(t, "require", ["--listen", `${OUTER}:0`]);
  const refused = await run(LAMINA, ["volume", "create", "v", "--size", "4M", "--data", server.data]);
  t.equal(refused.code, 1);
  t.match(refused.stderr, /beyond its machine.*needs an access list.*--allow/);
  await server.lamina("volume", "create", "v", "--size", "4M", "--allow", "psk:alice");
  const opened = await run(LAMINA, ["volume", "set", "v", "--no-allow", "--data", server.data]);
  t.equal(opened.code, 1);
  t.match(opened.stderr, /ACCESS_LIST_REQUIRED/);
  t.equal((await check("nbdinfo", ["--size", uri("alice", "v")])).trim(), String(4 * 2 ** 20));
  await server.stop();
});

t.test("a store with an open volume is not served beyond loopback", OUTSIDE, async (t) => {
  const { server, directory } = await serve(t, "require");
  await server.lamina("volume", "create", "open", "--size", "4M");
  await server.stop();
  const listen = ["--listen", `${OUTER}:0`, "--admin", "127.0.0.1:0"];
  const tls = ["--tls", "require", "--tls-dir", directory];
  const common = ["serve", "--data", server.data, "--redis", "none", ...listen];
  const outcome = await run(LAMINA, [...common, ...tls]);
  t.equal(outcome.code, 1);
  t.match(outcome.stderr, /volume 'open' has no access list.*ACCESS_LIST_MISSING/);
  const config = join(directory, "serve.json");
  writeFileSync(config, JSON.stringify({ tls: "allow", "tls-dir": directory }));
  const selective = await run(LAMINA, [...common, "--config", config]);
  t.equal(selective.code, 64);
  t.match(selective.stderr, /LISTEN_INSECURE/);
});
