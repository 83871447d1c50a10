/**
 * Whatever a client has just said when its server is replaced: it is answered in whole replies, or not at all. To QEMU
 * and to the kernel every error is an I/O error for good, and to QEMU so is every byte that is no reply; what was not
 * answered is asked again.
 */
import t from "tap";
import { Command, NbdClient } from "../interop/support/nbd-client.js";
import { check, type Program } from "../interop/support/process.js";
import { requires } from "../interop/support/requirements.js";
import { LaminaServer, pause } from "../interop/support/server.js";
import { until } from "../interop/support/until.js";
import { VOLUME } from "../interop/support/volume.js";
import { SeededRandom } from "./support/random.js";
import { CLIENT_FLAGS, option, request, Speaker } from "./support/speaker.js";

const NEEDS_QEMU = requires({ lamina: true, commands: ["qemu-img"] });
const MIB = 1 << 20;
const BLOCK = 4096;
const READS = 24;
const OPT_GO = 7;
const OPT_STRUCTURED_REPLY = 8;
const OPT_SET_META_CONTEXT = 10;
const REP_ERR_SHUTDOWN = 2 ** 31 + 7;

const name = Buffer.from(VOLUME);
const named = Buffer.concat([u32(name.length), name]);
/** With one information request, the block sizes, as QEMU has it. */
const GO = Buffer.concat([named, Buffer.from([0, 1, 0, 3])]);
const context = Buffer.from("base:allocation");
const META = Buffer.concat([named, u32(1), u32(context.length), context]);

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

async function flags(speaker: Speaker): Promise<void> {
  await speaker.greeting();
  speaker.say(CLIENT_FLAGS);
}

async function structured(speaker: Speaker): Promise<void> {
  await flags(speaker);
  await speaker.negotiate(OPT_STRUCTURED_REPLY);
  await speaker.negotiate(OPT_SET_META_CONTEXT, META);
}

async function gone(speaker: Speaker): Promise<void> {
  await structured(speaker);
  await speaker.negotiate(OPT_GO, GO);
}

interface Instant {
  readonly about: string;
  /** Speaks, and stops at the instant. */
  readonly speak: (speaker: Speaker) => Promise<void>;
  /** Cookies that must have been answered; left out: it is still in the handshake. */
  readonly answered?: readonly number[];
}

const payload = Buffer.alloc(BLOCK, 9);

const INSTANTS: readonly Instant[] = [
  { about: "connected", speak: () => Promise.resolve() },
  { about: "half of its flags", speak: (speaker) => Promise.resolve(speaker.say(Buffer.from([0, 0]))) },
  { about: "its flags", speak: flags },
  {
    about: "half an option",
    speak: async (speaker) => {
      await flags(speaker);
      speaker.say(option(OPT_STRUCTURED_REPLY).subarray(0, 10));
    },
  },
  { about: "its contexts", speak: structured },
  {
    about: "half of GO",
    speak: async (speaker) => {
      await structured(speaker);
      speaker.say(option(OPT_GO, GO).subarray(0, 20));
    },
  },
  { about: "GO", speak: gone, answered: [] },
  {
    about: "a write, answered",
    speak: async (speaker) => {
      await gone(speaker);
      speaker.say(Buffer.concat([request(Command.WRITE, 1, 0, BLOCK), payload]));
    },
    answered: [1],
  },
  {
    about: "half a request behind a whole one",
    speak: async (speaker) => {
      await gone(speaker);
      speaker.say(request(Command.FLUSH, 1, 0, 0));
      speaker.say(request(Command.READ, 2, 0, BLOCK).subarray(0, 13));
    },
    answered: [1],
  },
  {
    about: "a write without the end of its payload",
    speak: async (speaker) => {
      await gone(speaker);
      speaker.say(request(Command.FLUSH, 1, 0, 0));
      speaker.say(Buffer.concat([request(Command.WRITE, 2, BLOCK, BLOCK), payload.subarray(1)]));
    },
    answered: [1],
  },
  {
    about: "reads whose replies it takes late",
    speak: async (speaker) => {
      await gone(speaker);
      speaker.socket.pause();
      for (let i = 0; i < READS; i++) speaker.say(request(Command.READ, 1 + i, i * MIB, MIB));
    },
    answered: Array.from({ length: READS }, (_, i) => 1 + i),
  },
];

t.test("at each instant", requires({ lamina: true }), async (t) => {
  const server = new LaminaServer({ capacity: "256M", args: ["--redis", "none", "--pool", "32M"] });
  t.teardown(async () => server.dispose());
  await server.start();
  await server.createVolume(VOLUME, "64M");
  const filler = await NbdClient.connect(server.host, server.port, VOLUME);
  for (let i = 0; i < READS; i++) await filler.write(i * MIB, Buffer.alloc(MIB, i));
  await filler.close();
  const speakers = await Promise.all(
    INSTANTS.map(async ({ speak }) => {
      const speaker = await Speaker.open(server.host, server.port);
      t.teardown(() => speaker.socket.destroy());
      await speak(speaker);
      return speaker;
    }),
  );
  // Now everything that was said has been heard.
  await pause(300);
  const replaced = server.replace();
  await pause(1000);
  for (const speaker of speakers) speaker.socket.resume();
  await replaced;
  for (const [i, { about, answered }] of INSTANTS.entries()) {
    const speaker = speakers[i]!;
    await until(`${about}: it is over`, () => speaker.over);
    if (answered === undefined) {
      const greeted = i >= 2;
      if (!greeted) await speaker.greeting();
      const { options, wrong } = speaker.rest(false);
      t.same(wrong, [], about);
      t.ok(
        options.every((type) => type === REP_ERR_SHUTDOWN),
        "in the handshake it is told of the end, or nothing",
      );
    } else {
      const rest = speaker.rest(true);
      t.same(
        { ...rest, answered: [...rest.answered].sort((a, b) => a - b) },
        {
          options: [],
          answered,
          wrong: [],
          tornBytes: 0,
        },
        about,
      );
    }
  }
  const again = await NbdClient.connect(server.host, server.port, VOLUME);
  t.ok((await again.read(0, BLOCK)).equals(payload), "what was answered has happened");
  t.ok((await again.read(BLOCK, BLOCK)).equals(Buffer.alloc(BLOCK)), "what had not arrived whole has not");
  await again.close();
});

/** Knows both processes of a hand-over while it goes on. */
class WatchedServer extends LaminaServer {
  readonly launched: Program[] = [];

  protected override launch(replace: boolean): Program {
    const program = super.launch(replace);
    this.launched.push(program);
    return program;
  }

  /** Replaces itself while either process is stopped for a moment, again and again. */
  async replaceStarved(random: SeededRandom): Promise<void> {
    let over = false;
    const replaced = this.replace().finally(() => {
      over = true;
    });
    while (!over) {
      const program = random.pick(this.launched.slice(-2));
      signal(program, "SIGSTOP");
      await pause(random.between(10, 200));
      signal(program, "SIGCONT");
      await pause(random.between(5, 60));
    }
    await replaced;
  }
}

function signal(program: Program, name: NodeJS.Signals): void {
  if (program.isRunning) program.child.kill(name);
}

const REPLACEMENTS = 4;
const PATTERN = 0x5a;
const REQUESTS = 1000;
const REQUEST_BYTES = 32 << 10;

/** Arguments of qemu-img: so many writes, eight at a time, each eighth followed by a flush. */
function bench(server: LaminaServer): string[] {
  const { host, port } = server;
  const address = `server.type=inet,server.host=${host},server.port=${port}`;
  // A hand-over may fall into its opening, too.
  const disk = `driver=nbd,${address},export=${VOLUME},reconnect-delay=86400,open-timeout=60`;
  const load = ["-c", String(REQUESTS), "-d", "8", "-s", String(REQUEST_BYTES), "--flush-interval=8"];
  return ["bench", "-w", `--pattern=${PATTERN}`, "-t", "none", ...load, "--image-opts", disk];
}

t.test("QEMU, while neither process gets the processor", NEEDS_QEMU, async (t) => {
  const server = new WatchedServer({ capacity: "256M", args: ["--redis", "none", "--pool", "32M"] });
  t.teardown(async () => server.dispose());
  await server.start();
  await server.createVolume(VOLUME, "64M");
  const seed = Date.now() % 2 ** 31;
  t.comment(`seed ${seed}`);
  const random = new SeededRandom(seed);
  let over = false;
  let rounds = 0;
  const load = (async () => {
    for (; !over; rounds++) await check("qemu-img", bench(server));
  })();
  for (let i = 0; i < REPLACEMENTS; i++) {
    await pause(random.between(50, 300));
    await server.replaceStarved(random);
  }
  over = true;
  await load;
  t.ok(rounds > 0, `${rounds} times ${REQUESTS} writes, and none failed`);
  t.equal(server.launched.length, 1 + REPLACEMENTS);
  const client = await NbdClient.connect(server.host, server.port, VOLUME);
  for (let at = 0; at < REQUESTS * REQUEST_BYTES; at += MIB) {
    const bytes = Math.min(MIB, REQUESTS * REQUEST_BYTES - at);
    const found = await client.read(at, bytes);
    if (!found.equals(Buffer.alloc(bytes, PATTERN))) t.fail(`${at}: not what was written`);
  }
  await client.close();
});
