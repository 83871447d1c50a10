import t from "tap";
import {
  blockSizes,
  ErrUnknown,
  exportInfo,
  FLAGS,
  Flag,
  goodGo,
  greeting,
  MISSING,
  Option,
  probe,
  Reply,
  reply,
  type Script,
  u16,
  u64,
} from "./support.js";

/** An answer to GO made of these parts. */
function go(...parts: Buffer[]): Script {
  return { answer: () => Buffer.concat(parts) };
}

const info = reply(Option.Go, Reply.Info, exportInfo(1n << 30n));
const ack = reply(Option.Go, Reply.Ack);

const REFUSED: Readonly<Record<string, { script: Script; says: RegExp }>> = {
  "no NBD server": {
    script: { greeting: Buffer.from("SSH-2.0-OpenSSH_9.2p1 Debian\r\n") },
    says: /not an NBD server/,
  },
  oldstyle: {
    script: {
      greeting: Buffer.concat([Buffer.from("4e42444d414749430000420281861253", "hex"), u64(1n << 30n)]),
    },
    says: /oldstyle/,
  },
  "plain newstyle": { script: { greeting: greeting(0) }, says: /fixed newstyle/ },
  "half a greeting": {
    script: { greeting: greeting().subarray(0, 11), close: true },
    says: /closed the connection/,
  },
  "closes after GO": { script: { answer: () => null }, says: /closed the connection|connection broke/ },
  "unknown export": {
    script: go(reply(Option.Go, ErrUnknown, Buffer.from("no such\u001b[31m thing"))),
    says: /no export 'v': "no such\?\[31m thing"/,
  },
  policy: { script: go(reply(Option.Go, Reply.ErrPolicy)), says: /forbids 'v'/ },
  TLS: {
    script: go(reply(Option.Go, Reply.ErrTlsReqd)),
    says: /requires TLS, which the kernel's client does not have/,
  },
  "ACK without size": { script: go(ack), says: /without saying how large/ },
  "answer to another option": { script: go(reply(Option.Info, Reply.Ack)), says: /does not belong/ },
  "wrong reply magic": { script: go(Buffer.alloc(20, 0x5a)), says: /does not belong/ },
  "answer of 4 GiB": {
    script: go(reply(Option.Go, Reply.Info, Buffer.alloc(0), 0xffffffff)),
    says: /4294967295 bytes/,
  },
  "answer just over the bound": {
    script: go(reply(Option.Go, Reply.Info, Buffer.alloc(8193))),
    says: /8193 bytes/,
  },
  "information of one byte": { script: go(reply(Option.Go, Reply.Info, Buffer.alloc(1))), says: /malformed/ },
  "short export information": {
    script: go(reply(Option.Go, Reply.Info, exportInfo(4096n).subarray(0, 11))),
    says: /malformed/,
  },
  "long export information": {
    script: go(reply(Option.Go, Reply.Info, Buffer.concat([exportInfo(4096n), u16(0)]))),
    says: /malformed/,
  },
  "short block sizes": {
    script: go(reply(Option.Go, Reply.Info, blockSizes(1, 512, 512).subarray(0, 13))),
    says: /malformed/,
  },
  "reply of an unknown type": { script: go(reply(Option.Go, 77)), says: /malformed/ },
  "endless information": {
    script: go(...Array.from({ length: 200 }, () => reply(Option.Go, Reply.Info, u16(9)))),
    says: /does not end/,
  },
  "minimum that is no power of two": {
    script: go(info, reply(Option.Go, Reply.Info, blockSizes(3, 4096, 1 << 25)), ack),
    says: /impossible block sizes/,
  },
  "minimum of zero": {
    script: go(info, reply(Option.Go, Reply.Info, blockSizes(0, 4096, 1 << 25)), ack),
    says: /impossible block sizes/,
  },
  "minimum over 64 KiB": {
    script: go(info, reply(Option.Go, Reply.Info, blockSizes(1 << 17, 1 << 17, 1 << 25)), ack),
    says: /impossible block sizes/,
  },
  "preferred below minimum": {
    script: go(info, reply(Option.Go, Reply.Info, blockSizes(4096, 512, 1 << 25)), ack),
    says: /impossible block sizes/,
  },
  "maximum below preferred": {
    script: go(info, reply(Option.Go, Reply.Info, blockSizes(512, 4096, 2048)), ack),
    says: /impossible block sizes/,
  },
  "blocks larger than the kernel's": {
    script: go(info, reply(Option.Go, Reply.Info, blockSizes(8192, 8192, 1 << 25)), ack),
    says: /smallest block is 8192/,
  },
  "size beyond 2^63": {
    script: { answer: () => goodGo(1n << 63n) },
    says: /announces a size of 9223372036854775808/,
  },
  "largest size": { script: { answer: () => goodGo((1n << 64n) - 1n) }, says: /announces a size/ },
  empty: { script: { answer: () => goodGo(0n) }, says: /is empty/ },
  "no whole sectors": { script: { answer: () => goodGo(4097n) }, says: /no whole number of blocks/ },
  "flags without HAS_FLAGS": {
    script: { answer: () => goodGo(1n << 30n, FLAGS & ~Flag.HasFlags) },
    says: /flags that are none/,
  },
  "another size on the second connection": {
    script: { answer: (_option, _data, connection) => goodGo(connection === 0 ? 1n << 30n : 1n << 31n) },
    says: /changed its mind/,
  },
  "another mode on the second connection": {
    script: {
      answer: (_option, _data, connection) =>
        goodGo(1n << 30n, connection === 0 ? FLAGS : FLAGS | Flag.ReadOnly),
    },
    says: /changed its mind/,
  },
  "EXPORT_NAME without an answer": {
    script: { answer: (option) => (option === Option.Go ? reply(option, Reply.ErrUnsup) : null) },
    says: /no export 'v', or went away/,
  },
};

t.test("a server that is refused", MISSING, async (t) => {
  for (const [name, { script, says }] of Object.entries(REFUSED)) {
    const result = await probe(script);
    t.equal(result.code, 1, `${name}: exit code`);
    t.match(result.stderr, says, `${name}: the cause`);
    t.notMatch(result.stderr, /AddressSanitizer|runtime error/, name);
    t.equal(result.stdout, "", `${name}: nothing on standard output`);
  }
});

t.test("a server that is taken", MISSING, async (t) => {
  const good = await probe({});
  t.equal(good.code, 0, good.stderr);
  t.match(JSON.parse(good.stdout), {
    size: 1 << 30,
    connections: 2,
    blockSize: 4096,
    blockMin: 512,
    readOnly: false,
  });
  t.same(
    good.options,
    [Option.Go, Option.Go],
    "it asks for the volume and for nothing else: no structured replies",
  );

  const slow = await probe({ pieces: 1 });
  t.match(
    JSON.parse(slow.stdout),
    { size: 1 << 30, connections: 2, blockMin: 512 },
    "byte by byte is the same",
  );

  const single = await probe({ answer: () => goodGo(1n << 30n, FLAGS & ~Flag.MultiConn) });
  t.match(JSON.parse(single.stdout), { connections: 1 }, "one connection when the server allows only one");
  t.equal(single.connections, 1);

  const oldServer = await probe({
    answer: (option) =>
      option === Option.Go
        ? reply(option, Reply.ErrUnsup, Buffer.from("?"))
        : Buffer.concat([u64(1n << 20n), u16(FLAGS)]),
  });
  t.match(JSON.parse(oldServer.stdout), { size: 1 << 20, blockMin: 1 });
  t.same(oldServer.options, [Option.Go, Option.ExportName, Option.Go, Option.ExportName]);

  const zeroes = await probe({
    greeting: greeting(1),
    answer: (option) =>
      option === Option.Go
        ? reply(option, Reply.ErrUnsup)
        : Buffer.concat([u64(1n << 20n), u16(FLAGS), Buffer.alloc(124)]),
  });
  t.equal(zeroes.code, 0, "124 zeroes are read when the server does not leave them out");

  const other = await probe(
    go(reply(Option.Go, Reply.Info, Buffer.concat([u16(1), Buffer.from("v")])), info, ack),
  );
  t.equal(other.code, 0, "information that was not asked for is passed over");
});

t.test("block sizes", MISSING, async (t) => {
  const of = async (size: bigint, ...args: string[]): Promise<unknown> => {
    const result = await probe({ answer: () => goodGo(size) }, ...args);
    return result.code === 0 ? (JSON.parse(result.stdout) as { blockSize: number }).blockSize : result.stderr;
  };
  t.equal(await of(4096n * 3n), 4096);
  t.equal(await of(2048n * 3n), 2048);
  t.equal(await of(512n * 3n), 512);
  t.equal(await of(4096n, "--block-size", "512"), 512);
  t.match(await of(512n * 3n, "--block-size", "4096"), /no multiple of 4096/);
});

/** A small generator of its own, so that a failure can be had again from its seed. */
function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state >>> 8;
  };
}

const ROUNDS = Number(process.env["LAMINA_FUZZ_ROUNDS"] ?? 60);

t.test("a good conversation with some bytes changed", MISSING, async (t) => {
  const whole = Buffer.concat([greeting(), goodGo()]);
  let taken = 0;
  for (let seed = 0; seed < ROUNDS; seed++) {
    const next = random(seed);
    const bytes = Buffer.from(whole);
    for (let i = next() % 4; i >= 0; i--) bytes[next() % bytes.length] = next() % 256;
    const cut = next() % 3 === 0 ? next() % bytes.length : bytes.length;
    const said = bytes.subarray(0, cut);
    const result = await probe({
      greeting: said.subarray(0, Math.min(cut, greeting().length)),
      answer: () => said.subarray(greeting().length),
      close: true,
    });
    if (result.code === 0) taken++;
    t.ok(result.code === 0 || (result.code === 1 && result.stderr !== ""), `seed ${seed}: ${result.stderr}`);
    t.notMatch(result.stderr, /Sanitizer|runtime error/, `seed ${seed}`);
  }
  t.ok(taken < ROUNDS, "not everything was taken");
});

t.test("every cut of a good conversation", MISSING, async (t) => {
  const answer = goodGo();
  for (let cut = 0; cut < answer.length; cut += 7) {
    const result = await probe({ answer: () => answer.subarray(0, cut), close: true });
    t.equal(result.code, 1, `cut at ${cut}`);
    t.notMatch(result.stderr, /Sanitizer|runtime error/);
  }
});

t.test("a server that says nothing is given up", MISSING, async (t) => {
  const result = await probe({ greeting: Buffer.alloc(0) });
  t.equal(result.code, 1);
  t.match(result.stderr, /did not answer in time/);
});
