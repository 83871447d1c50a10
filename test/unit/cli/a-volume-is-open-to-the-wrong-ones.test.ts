/** Access lists from the command line to the record, and the server that will not serve without them. */
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import fc from "fast-check";
import { pino } from "pino";
import t, { type Test } from "tap";
import type { VolumeDetailView } from "../../../lib/admin/index.js";
import { formatAccessRule, parseAccessRule } from "../../../lib/cli/access-rules.js";
import { resolveServeOptions, type ServeArguments } from "../../../lib/cli/serve/options.js";
import { startServer } from "../../../lib/cli/serve/server.js";
import type { AccessRule } from "../../../lib/replica/record.js";
import { lamina } from "./support/run.js";
import { running, scratch, serve } from "./support/server.js";

t.test("rules as they are written", (t) => {
  const cases: [string, AccessRule][] = [
    ["cert:alice", { kind: "cert", value: "alice", readOnly: false }],
    ["cert:alice:ro", { kind: "cert", value: "alice", readOnly: true }],
    ["cert:a:b:c", { kind: "cert", value: "a:b:c", readOnly: false }],
    ["cert:x:ro:rw", { kind: "cert", value: "x:ro", readOnly: false }],
    ["cert:x:ro:ro", { kind: "cert", value: "x:ro", readOnly: true }],
    ["psk:backup:ro", { kind: "psk", value: "backup", readOnly: true }],
    ["address:10.0.0.0/8", { kind: "address", value: "10.0.0.0/8", readOnly: false }],
    ["address:fd00::/8:ro", { kind: "address", value: "fd00::/8", readOnly: true }],
    ["address:::1", { kind: "address", value: "::1", readOnly: false }],
    ["address:::/0:ro", { kind: "address", value: "::/0", readOnly: true }],
  ];
  for (const [text, rule] of cases) t.same(parseAccessRule(text), rule, text);
  t.throws(() => parseAccessRule("cert::ro"), { code: "ACCESS_RULE_INVALID" }, "no name");
  t.end();
});

t.test("every rule is read as it is shown", (t) => {
  const name = fc.string({ unit: "grapheme", minLength: 1 }).filter((text) => /^\P{Cc}*$/u.test(text));
  const suffix = fc.constantFrom("", ":ro", ":rw", ":ro:rw", ":rw:ro");
  const rule = fc.record({
    kind: fc.constant("cert" as const),
    value: fc.tuple(name, suffix).map(([text, end]) => text + end),
    readOnly: fc.boolean(),
  });
  fc.assert(
    fc.property(rule, (given) => isDeepStrictEqual(parseAccessRule(formatAccessRule(given)), { ...given })),
  );
  t.end();
});

t.test("what create, set and show do with them", async (t) => {
  const { run } = await running(t);
  const shown = async (): Promise<VolumeDetailView["access"]> => {
    const { stdout } = await run("volume", "show", "v", "--json");
    return (JSON.parse(stdout) as VolumeDetailView).access;
  };
  const list = ["--allow", "cert:alice", "--allow", "address:10.0.0.0/8:ro"];
  t.equal((await run("volume", "create", "v", "--size", "1M", ...list)).code, 0);
  const both = [
    { kind: "cert", value: "alice", readOnly: false },
    { kind: "address", value: "10.0.0.0/8", readOnly: true },
  ];
  t.same(await shown(), both);
  t.match((await run("volume", "show", "v")).stdout, /^access +cert:alice\n +address:10\.0\.0\.0\/8:ro$/m);
  await run("volume", "set", "v", "--description", "else");
  t.same(await shown(), both, "other changes leave the list alone");
  await run("volume", "set", "v", "--allow", "psk:bob");
  t.same(
    await shown(),
    [{ kind: "psk", value: "bob", readOnly: false }],
    "a new list takes the old one's place",
  );
  const refused = await run("volume", "set", "v", "--allow", "cert:eve", "--allow", "address:10.0.0.0/99");
  t.equal(refused.code, 64);
  t.same(await shown(), [{ kind: "psk", value: "bob", readOnly: false }], "nothing was changed");
  await run("volume", "set", "v", "--no-allow");
  t.same(await shown(), []);
});

/** A directory with a key, for a server that requires TLS. */
function tlsDirectory(t: Test): string {
  const directory = t.testdir({});
  writeFileSync(join(directory, "keys.psk"), `alice:${"0123456789abcdef".repeat(2)}\n`, { mode: 0o600 });
  return directory;
}

t.test("beyond loopback", async (t) => {
  const data = join(scratch(t), "data");
  const tls = { tls: "require", "tls-dir": tlsDirectory(t) } as const;
  const open: ServeArguments = { ...tls, listen: "0.0.0.0:0" };
  const first = await serve(data, open);
  t.match(first.uris[0], /^nbds:\/\/0\.0\.0\.0:\d+$/);
  const create = ["volume", "create", "v", "--size", "1M", "--data", data];
  t.match(await lamina(...create), { code: 1, stderr: /ACCESS_LIST_REQUIRED/ });
  t.match(await lamina(...create, "--no-allow"), { code: 1, stderr: /ACCESS_LIST_REQUIRED/ });
  t.match(await lamina(...create, "--allow", "psk:alice"), { code: 0 });
  const set = (...args: string[]) => lamina("volume", "set", "v", "--data", data, ...args);
  t.match(await set("--no-allow"), { code: 1, stderr: /ACCESS_LIST_REQUIRED/ });
  t.match(await set("--read-only"), { code: 0 }, "other changes are allowed");
  await first.close();

  const second = await serve(data, tls);
  t.match(await set("--no-allow"), { code: 0 }, "on loopback it may be open");
  await second.close();

  await t.rejects(serve(data, open), { code: "ACCESS_LIST_MISSING", params: { name: "v" } });
  const insecure = await serve(data, { ...open, insecure: true });
  t.match(await set("--description", "x"), { code: 0 });
  t.match(await set("--allow", "psk:alice"), { code: 0 });
  await insecure.close();
  const last = await serve(data, open);
  t.ok(last.reloadTls());
  await last.close();
});

t.test("files of TLS that cannot be used are told before anything is written", async (t) => {
  const data = join(scratch(t), "data");
  await t.rejects(serve(data, { tls: "require", "tls-dir": t.testdir({}) }), { code: "TLS_FILES" });
  t.throws(() => execFileSync("ls", [data], { stdio: "pipe" }), "no data directory was made");
});

t.test("what is unwise is warned of", async (t) => {
  const data = join(scratch(t), "data");
  const directory = tlsDirectory(t);
  const first = await serve(data, { tls: "allow", "tls-dir": directory });
  await lamina("volume", "create", "v", "--size", "1M", "--allow", "psk:alice", "--data", data);
  await first.close();
  const lines: string[] = [];
  const log = pino({ level: "warn" }, { write: (line: string) => void lines.push(line) });
  const common = { data, listen: "127.0.0.1:0", admin: "127.0.0.1:0", redis: "none", pool: "16M" } as const;
  const plain = await startServer(resolveServeOptions(common, undefined), log);
  await plain.close();
  t.match(lines.join(""), /nobody can use this volume.*TLS, which is off/);
  execFileSync("chmod", ["644", join(directory, "keys.psk")]);
  const readable = resolveServeOptions({ ...common, tls: "allow", "tls-dir": directory }, undefined);
  const exposed = await startServer(readable, log);
  await exposed.close();
  t.match(lines.at(-1), /everyone on this machine can read this secret/);
});

t.test("the same from a configuration file", (t) => {
  const path = join(scratch(t), "serve.json");
  const directory = tlsDirectory(t);
  writeFileSync(
    path,
    JSON.stringify({ tls: "require", "tls-dir": directory, listen: ["127.0.0.1:1", "[::]:2"] }),
  );
  const options = resolveServeOptions({}, path);
  t.same(options.tls, { mode: "forced", directory });
  t.equal(options.guardedAddress, "[::]:2");
  t.equal(resolveServeOptions({ insecure: true }, path).guardedAddress, null);
  t.equal(
    resolveServeOptions({ listen: "unix:/x" }, path).guardedAddress,
    null,
    "the command line goes first",
  );
  t.throws(() => resolveServeOptions({ tls: "off" }, path), { code: "LISTEN_INSECURE" });
  const inherited = {
    listen: { kind: "fd", fd: 3 },
    bound: { kind: "tcp", host: "192.0.2.1", port: 3 },
  } as const;
  t.throws(() => resolveServeOptions({}, undefined, [inherited]), { code: "LISTEN_INSECURE" });
  const local = { ...inherited, bound: { kind: "unix", path: "/run/x" } } as const;
  t.same(resolveServeOptions({}, undefined, [local]).listen, [local.listen], "and nothing else");
  t.equal(resolveServeOptions({ listen: "127.0.0.1:0" }, undefined, [local]).listen.length, 2);
  t.end();
});
