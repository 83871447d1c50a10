/** Somebody else answers where a node was. */
import { join } from "node:path";
import { check, Program } from "../../../interop/support/process.js";
import { LAMINA } from "../../../interop/support/server.js";
import type { Station } from "../cluster.js";
import { KILLED_MS, type Scene, type Stage } from "./scene.js";

/** What a stranger does with whoever connects. */
const MANNERS = {
  "says nothing": "() => undefined",
  "hangs up": "(socket) => socket.destroy()",
  "says it back": "(socket) => socket.pipe(socket)",
  "talks nonsense": "(socket) => socket.write(require('node:crypto').randomBytes(4096))",
} as const;

function strangerAt({ host, port, prefix }: Station, manner: keyof typeof MANNERS): Program {
  const program = `require("node:net").createServer((socket) => {
    socket.on("error", () => undefined);
    (${MANNERS[manner]})(socket);
  }).listen(${port}, "${host}", () => console.log("listens"));`;
  const [first, ...others] = [...prefix, process.execPath, "-e", program];
  return new Program(first!, others);
}

async function stranger(stage: Stage): Promise<void> {
  const node = stage.random.pick(stage.cluster.nodes);
  const manner = stage.random.pick(Object.keys(MANNERS) as (keyof typeof MANNERS)[]);
  await node.kill();
  const other = strangerAt(node, manner);
  await other.printed(/listens/);
  await stage.during(KILLED_MS);
  const said = await node.refusedToStart();
  if (!/LAMINA_LISTEN_/.test(said)) stage.problem(`a node whose port is taken does not say so:\n${said}`);
  await other.end("SIGKILL");
  node.launch();
  await node.ready();
  await stage.stopLoad();
}

/** A node of another cluster, with a key of its own, at the address of one of this. */
async function foreignNode(stage: Stage): Promise<void> {
  const { cluster, random } = stage;
  const node = random.pick(cluster.nodes);
  const directory = join(cluster.directory, `foreign-${random.between(0, 2 ** 31)}`);
  await check(LAMINA, ["cluster", "init", "--data", directory]);
  await node.kill();
  const args = ["--cluster", node.address, "--listen", node.address, "--capacity", "64M", "--insecure"];
  const other = node.startBeside(["node", "--data", directory, ...args]);
  await other.printed(/^lamina ready /m);
  await stage.during(KILLED_MS);
  await other.end("SIGKILL");
  node.launch();
  await node.ready();
  await stage.stopLoad();
}

export const PORT_SCENES: readonly Scene[] = [
  { name: "a stranger has the port", play: stranger },
  { name: "a foreign node has the port", play: foreignNode },
];
