import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import t from "tap";
import { openEngine } from "../../../lib/uring/engine.js";
import { sdNotify } from "../../../lib/uring/notify.js";
import { lacks, scratchDirectory } from "./support/devices.js";
import { Program } from "./support/run.js";

const ADDON = fileURLToPath(new URL("../../../addon/build/Release/lamina_uring.node", import.meta.url));

/** Errors of io_uring_setup, and a word of what an operator must be told about each. */
const REFUSALS: readonly (readonly [number, RegExp])[] = [
  [-1, /container profile|io_uring_disabled/],
  [-12, /locked memory/],
  [-22, /older than 6\.0/],
  [-38, /no io_uring/],
  [-24, /EMFILE/],
];

t.test("where the ring is refused, threads run and say why", async (t) => {
  const directory = t.testdir();
  for (const [errno, reason] of REFUSALS) {
    const refusing = join(directory, `refusing${errno}.cjs`);
    writeFileSync(
      refusing,
      `module.exports = { ...require(${JSON.stringify(ADDON)}), ringCreate: () => ${errno} };`,
    );
    const env = { LAMINA_ADDON: refusing };
    const auto = new Program("describe", "auto", [], env);
    t.equal((await auto.ended).code, 0);
    t.match(auto.lines, ["threads", reason]);
    const forced = await new Program("describe", "ring", [], env).ended;
    t.not(forced.code, 0, "asked for by name, it is an error");
    t.match(forced.stderr, /RING_REFUSED/);
    t.match(forced.stderr, reason);
  }
});

t.test("engines that were asked for have no reason to tell", async (t) => {
  const threads = new Program("describe", "threads", []);
  await threads.ended;
  t.same(threads.lines, ["threads", "null"]);
});

t.test("a missing addon is an error that names the command", async (t) => {
  const { code, stderr } = await new Program("describe", "auto", [], { LAMINA_ADDON: "/nowhere/a.node" })
    .ended;
  t.not(code, 0);
  t.match(stderr, /ADDON_MISSING/);
  t.match(stderr, /npm run build:addon/);
});

t.test("a pool that cannot be had is an error with its size", async (t) => {
  const poolBytes = 2 ** 46;
  t.throws(() => openEngine({ kind: "threads", poolBytes }), {
    code: "POOL_REFUSED",
    message: /70368744177664/,
  });
});

t.test(
  "readiness is told to a service manager, by path and by abstract name",
  { skip: lacks("python3") },
  async (t) => {
    const directory = scratchDirectory(t);
    t.equal(sdNotify("READY=1", undefined), false, "nobody to tell");
    t.equal(sdNotify("READY=1", join(directory, "none")), false, "nobody listens");
    t.equal(sdNotify("READY=1", "vsock:2:1"), false, "not for us");
    for (const [name, bind] of [
      [join(directory, "notify"), join(directory, "notify")],
      [`@lamina-${process.pid}`, `\\0lamina-${process.pid}`],
    ] as const) {
      const received = join(directory, "received");
      const script = [
        "import socket, sys",
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)",
        `s.bind("${bind}")`,
        "print('bound', flush=True)",
        `open("${received}", "wb").write(s.recv(4096))`,
      ].join("\n");
      const manager = spawn("python3", ["-c", script], { stdio: ["ignore", "pipe", "inherit"] });
      await once(manager.stdout, "data");
      t.equal(sdNotify("READY=1\nSTATUS=serving", name), true);
      await once(manager, "exit");
      t.equal(readFileSync(received, "utf8"), "READY=1\nSTATUS=serving");
    }
  },
);

t.test("the build says that it is up to date, and downloads nothing", async (t) => {
  const script = fileURLToPath(new URL("../../../scripts/build-addon.mjs", import.meta.url));
  execFileSync(process.execPath, [script], { env: { ...process.env, HTTPS_PROXY: "http://127.0.0.1:9" } });
  const output = execFileSync(process.execPath, [script]).toString();
  t.match(output, /up to date/);
});
