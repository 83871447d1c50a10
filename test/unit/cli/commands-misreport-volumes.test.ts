import { readFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { lamina } from "./support/run.js";
import { running, serve } from "./support/server.js";

t.test("the life of a volume", async (t) => {
  const { run, data, server } = await running(t);
  const create = await run(
    "volume",
    "create",
    "v1",
    "--size",
    "100T",
    "--description",
    "mine",
    "--stripe-count",
    "2",
  );
  t.same([create.code, create.stdout], [0, "created volume v1 of 100 TiB\n"], create.stderr);
  const twice = await run("volume", "create", "v1", "--size", "1G");
  t.equal(twice.code, 1);
  t.match(twice.stderr, /'v1' exists already; choose another name/);
  t.match((await run("volume", "create", "v2", "--size", "1G", "--replicas", "2")).stderr, /2 replicas/);
  t.match((await run("volume", "ls")).stdout, /^NAME .*\nv1 +100 TiB +0 B +0 +ok +mine\n$/);
  t.match((await run("volume", "show", "v1")).stdout, /stripes +2 × 256 KiB/);
  t.match(JSON.parse((await run("volume", "set", "v1", "--read-only", "--json")).stdout), { readOnly: true });
  t.match(JSON.parse((await run("volume", "set", "v1", "--no-read-only", "--json")).stdout), {
    readOnly: false,
  });
  t.match((await run("volume", "resize", "v1", "--size", "1G")).stderr, /cannot shrink/);
  t.equal((await run("volume", "resize", "v1", "--size", "200T")).stdout, "volume v1 now has 200 TiB\n");
  t.equal((await run("volume", "rename", "v1", "v2")).stdout, "volume v1 is now v2\n");
  t.match((await run("volume", "show", "v1")).stderr, /no volume named 'v1'; list them with/);

  const status = await run("status");
  t.match(status.stdout, server.uris[0]);
  t.match(status.stdout, /state +ready/);
  const events = JSON.parse((await run("events", "--json")).stdout) as { events: { kind: string }[] };
  t.ok(events.events.some(({ kind }) => kind === "volume-created"));
  t.match((await run("events", "--limit", "1")).stdout, /^[^\n]+\n$/);

  t.equal((await run("volume", "rm", "v2")).stdout, "removed volume v2\n");
  t.equal((await run("volume", "ls")).stdout, "NAME  SIZE  USED  CLIENTS  STATE  DESCRIPTION\n");

  const token = readFileSync(join(data, "admin.token"), "utf8").trim();
  const url = `http://${server.adminAddress}`;
  t.match((await lamina("volume", "ls", "--server", url)).stderr, /needs the token/);
  process.env["LAMINA_TOKEN"] = token;
  t.teardown(() => {
    delete process.env["LAMINA_TOKEN"];
  });
  t.equal((await lamina("volume", "ls", "--server", url)).code, 0);
});

t.test("kept over a restart", async (t) => {
  const { run, data, server } = await running(t);
  t.equal((await run("volume", "create", "v", "--size", "1G", "--description", "kept")).code, 0);
  const before = JSON.parse((await run("volume", "show", "v", "--json")).stdout) as unknown;
  await server.close();
  const fsck = await lamina("fsck", "--data", data);
  t.same([fsck.code, fsck.stderr], [0, ""]);
  const again = await serve(data);
  t.teardown(() => again.close());
  t.same(JSON.parse((await run("volume", "show", "v", "--json")).stdout), before);
});

t.test("help with examples", async (t) => {
  const commands = ["serve", "stop", "events", "doctor", "fsck", "format"];
  const verbs = ["create", "ls", "show", "set", "rename", "resize", "rm", "export", "import"];
  for (const words of [[], ...commands.map((c) => [c]), ...verbs.map((v) => ["volume", v]), ["status"]]) {
    const { code, stdout } = await lamina(...words, "--help");
    t.equal(code, 0, words.join(" "));
    t.match(stdout, /--json/);
    if (words.length === 1 && words[0] !== "status") t.match(stdout, /Examples:/, words.join(" "));
  }
  for (const verb of verbs) t.match((await lamina("volume", "--help")).stdout, `lamina volume ${verb}`);
  t.match((await lamina("completion")).stdout, /_lamina_yargs_completions|compdef/);
  t.match((await lamina("--version")).stdout, /^\d+\.\d+\.\d+\n$/);
});
