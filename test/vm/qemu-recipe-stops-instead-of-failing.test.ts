/**
 * QEMU as docs/attach.md says it: the machine is started before its server, and a full store stops it until there is
 * room again. Its guest sees neither.
 */
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import t from "tap";
import { NbdClient } from "../interop/support/nbd-client.js";
import { requires } from "../interop/support/requirements.js";
import { removeScratch, scratchDirectory } from "../interop/support/scratch.js";
import { LaminaServer, pause } from "../interop/support/server.js";
import { until } from "../interop/support/until.js";
import { NO_REDIS } from "./support/attach.js";
import { GUEST_NEEDS, Guest } from "./support/guest.js";

const MIB = 1 << 20;
/** Of a store of about 58 extents; together more than it holds. */
const FILLER_BYTES = 160 * MIB;
const PIECES = 14;

const JOB = `
[ -b /dev/vda ]
dd if=/dev/urandom of=/tmp/piece bs=1M count=8
for i in $(seq 0 ${PIECES - 1}); do dd if=/tmp/piece of=/dev/vda bs=1M seek=$((i * 8)) conv=fsync 2>/dev/null; done
echo "GUEST wrote all"
echo 3 >/proc/sys/vm/drop_caches
for i in $(seq 0 ${PIECES - 1}); do dd if=/dev/vda bs=1M skip=$((i * 8)) count=8 2>/dev/null | cmp - /tmp/piece; done
echo "GUEST read all"
`;

interface QmpMessage {
  readonly event?: string;
  readonly data?: { readonly nospace?: boolean; readonly action?: string };
}

/** QEMU's monitor; counts the stops for want of space. */
class Monitor {
  stops = 0;
  /** Nobody listened yet. */
  failed = false;
  readonly #socket: Socket;

  constructor(path: string) {
    this.#socket = connect(path);
    this.#socket.setEncoding("utf8").on("error", () => {
      this.failed = true;
    });
    let rest = "";
    this.#socket.on("data", (text: string) => {
      const lines = (rest + text).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) this.#heard(JSON.parse(line) as QmpMessage);
    });
    this.say("qmp_capabilities");
  }

  say(execute: string): void {
    this.#socket.write(`${JSON.stringify({ execute })}\n`);
  }

  close(): void {
    this.#socket.destroy();
  }

  #heard({ event, data }: QmpMessage): void {
    if (event === "BLOCK_IO_ERROR" && data?.nospace === true && data.action === "stop") this.stops++;
  }
}

t.test("open-timeout and werror=enospc", requires({ ...GUEST_NEEDS, lamina: true }), async (t) => {
  const folder = scratchDirectory();
  t.teardown(() => removeScratch(folder));
  const server = new LaminaServer({ ...NO_REDIS, capacity: "256M" });
  t.teardown(async () => server.dispose());
  await server.start();
  await server.createVolume("filler", "160M");
  await server.lamina("volume", "create", "v", "--size", "256M", "--on-full", "enospc");
  const client = await NbdClient.connect(server.host, server.port, "filler");
  for (let at = 0; at < FILLER_BYTES; at += MIB) await client.write(at, Buffer.alloc(MIB, 1));
  await client.close();
  await server.stop();

  const { host, port } = server;
  const options = "reconnect-delay=86400,open-timeout=60,discard=unmap";
  const sectors = "discard_granularity=4096,logical_block_size=512,physical_block_size=4096";
  const socket = join(folder, "qmp");
  const guest = await Guest.boot({
    job: JOB,
    qemu: [
      "-blockdev",
      `driver=nbd,node-name=d0,server.type=inet,server.host=${host},server.port=${port},export=v,${options}`,
      "-device",
      `virtio-blk-pci,drive=d0,${sectors},werror=enospc`,
      "-qmp",
      `unix:${socket},server=on,wait=off`,
    ],
  });
  t.teardown(async () => guest.dispose());
  await pause(1500);
  t.ok(guest.program.isRunning, "it waits for its server");
  await server.start();

  let ended = false;
  const ending = guest.ended().finally(() => {
    ended = true;
  });
  let monitor: Monitor | null = null;
  await until("it stops for want of space", () => {
    if (monitor === null || monitor.failed) monitor = new Monitor(socket);
    return ended || monitor.stops > 0;
  });
  await server.lamina("volume", "rm", "filler");
  // Space that was given back is zeroed first: it may stop again.
  await until("it has gone on to its end", () => {
    monitor?.say("cont");
    return ended;
  });
  const { code, console, kernelComplaints } = await ending;
  if (code !== 0) t.comment(console);
  t.ok((monitor as Monitor | null)!.stops > 0, "a full store stopped the machine");
  t.equal(code, 0, "the job ended well");
  t.match(console, /^GUEST wrote all$/m);
  t.match(console, /^GUEST read all$/m);
  t.same(kernelComplaints, []);
  (monitor as Monitor | null)?.close();
});
