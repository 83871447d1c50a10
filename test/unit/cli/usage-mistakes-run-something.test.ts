import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t from "tap";
import { lamina } from "./support/run.js";

const directory = mkdtempSync(join(tmpdir(), "lamina-usage-"));
t.teardown(() => rmSync(directory, { recursive: true, force: true }));
const data = join(directory, "data");
const config = join(directory, "config.json");
writeFileSync(config, '{"data": "x", "colour": "red"}');
const broken = join(directory, "broken.json");
writeFileSync(broken, "{");

const create = ["volume", "create"];
const MISTAKES: [readonly string[], RegExp][] = [
  [[], /say what to do; see: lamina --help/],
  [["serv"], /no such command.*'serve'/],
  [["volume"], /say what to do with volumes; see: lamina volume --help/],
  [["volume", "creat", "x"], /no such command.*'create'/],
  [["--nope"], /./],
  [create, /an argument is missing; see: lamina volume create --help/],
  [[...create, "x"], /--size is missing/],
  [[...create, "x", "--size"], /--size needs a value/],
  [[...create, "x", "--size", "1G", "--wat", "3"], /no option or argument 'wat'/],
  [[...create, "x", "--size", "1G", "y"], /no option or argument 'y'/],
  [[...create, "x", "--size", "1G", "--size", "2G"], /--size is given more than once/],
  [[...create, "x", "--size", "0"], /'0' is not a size/],
  [[...create, "x", "--size", "-5G"], /'-5G' is not a size/],
  [[...create, "x", "--size=-4096"], /'-4096' is not a size/],
  [[...create, "x", "--size", "10X"], /'10X' is not a size/],
  [[...create, "x", "--size", "0.3"], /'0.3' is not a size/],
  [[...create, "x", "--size", "1e9"], /'1e9' is not a size/],
  [[...create, "x", "--size", "5000"], /not a multiple of 4096; use 8192/],
  [[...create, "x", "--size", "16P"], /over the limit/],
  [[...create, "x", "--size", "99999999999T"], /over the limit/],
  [[...create, "a/b", "--size", "1G"], /'a\/b' is not a volume name/],
  [[...create, ".x", "--size", "1G"], /not a volume name/],
  [[...create, "", "--size", "1G"], /not a volume name/],
  [[...create, "x".repeat(64), "--size", "1G"], /not a volume name/],
  [[...create, "x", "--size", "1G", "--replicas", "two"], /--replicas 'two'/],
  [[...create, "x", "--size", "1G", "--on-full", "explode"], /on-full/],
  [["volume", "show", "a b"], /not a volume name/],
  [["volume", "rename", "a", "b/c"], /not a volume name/],
  [["volume", "resize", "a", "--size", "1"], /use 4096/],
  [["volume", "set", "a"], /nothing to change/],
  [["volume", "set", "a", "--allow"], /--allow needs a value/],
  [["volume", "set", "a", "--allow", "alice"], /'alice' is not an access rule: it is not KIND:VALUE/],
  [["volume", "set", "a", "--allow", "user:alice"], /there is no kind 'user'/],
  [["volume", "set", "a", "--allow", "cert:"], /there is nothing behind 'cert:'/],
  [["volume", "set", "a", "--allow", "cert:a\tb"], /control characters/],
  [["volume", "set", "a", "--allow", "psk:a:b"], /an identity has no ':'/],
  [
    ["volume", "set", "a", "--allow", "address:10.0.0.0/33"],
    /'10.0.0.0\/33' is neither an address nor a prefix/,
  ],
  [["volume", "set", "a", "--allow", "address:10.0.0"], /neither an address nor a prefix/],
  [["volume", "set", "a", "--allow", "address:fe80::1%eth0"], /neither an address nor a prefix/],
  [["volume", "set", "a", "--allow", "address:host.example:ro"], /neither an address nor a prefix/],
  [["volume", "set", "a", "--allow", "cert:x", "--no-allow"], /contradict each other/],
  [
    [...create, "x", "--size", "1G", "--allow", "cert:x", "--allow", "nobody"],
    /'nobody' is not an access rule/,
  ],
  [["volume", "ls", "--server", "nope"], /not http:\/\/HOST:PORT/],
  [["events", "--limit", "0"], /--limit '0'/],
  [["events", "--limit", "1001"], /over 1000/],
  [["serve", "--listen", "nonsense"], /not HOST:PORT or unix:PATH/],
  [["serve", "--listen", "127.0.0.1:99999"], /not HOST:PORT/],
  [["serve", "--listen", "unix:"], /needs a path/],
  [["serve", "--listen", "0.0.0.0:10809"], /everyone who reaches it/],
  [["serve", "--listen", "[::]:10809"], /everyone who reaches it/],
  [["serve", "--listen", "127.0.0.1:0", "--listen", "10.0.0.1:1"], /everyone who reaches it/],
  [["serve", "--admin", "0.0.0.0:1"], /token unencrypted/],
  [["serve", "--listen", "0.0.0.0:1", "--tls", "allow", "--tls-dir", directory], /everyone who reaches it/],
  [["serve", "--tls", "sometimes"], /tls/],
  [["serve", "--tls", "require"], /--tls require needs --tls-dir/],
  [["serve", "--tls-dir", directory], /neither --tls allow nor --tls require/],
  [["serve", "--redis", "http://x"], /scheme 'http' is not known/],
  [["serve", "--redis", "redis://:secret@h:bad"], /Redis URL/],
  [["serve", "--capacity", "1G", "--device", "/dev/null"], /used whole/],
  [["serve", "--capacity", "lots"], /'lots' is not a size/],
  [["serve", "--pool", "3"], /--pool 3/],
  [["serve", "--pool", "8G"], /--pool 8G/],
  [["serve", "--io-engine", "fast"], /io-engine/],
  [["serve", "--default-export", "a/b"], /not a volume name/],
  [["serve", "--config", join(directory, "missing")], /configuration file/],
  [["serve", "--config", broken], /configuration file/],
  [["serve", "--config", config], /colour/],
  [["doctor", "--redis", "nope"], /Redis URL/],
  [["format"], /an argument is missing/],
];

for (const [args, expected] of MISTAKES) {
  t.test(`lamina ${args.join(" ").slice(0, 70)}`, async (t) => {
    const place = args[0] === "serve" ? ["--data", data] : [];
    const outcome = await lamina(...args, ...place);
    t.equal(outcome.code, 64);
    t.match(outcome.stderr, expected);
    t.match(outcome.stderr, /^lamina: [^\n]+; [^\n]+ \(LAMINA_[A-Z_]+\)\n$/, "one line: cause and next step");
    t.notMatch(outcome.stderr, /secret/);
    t.equal(outcome.stdout, "");
    t.notOk(existsSync(data), "nothing was made");
  });
}

t.test("as JSON", async (t) => {
  const { code, stderr } = await lamina("volume", "create", "x", "--size", "5000", "--json");
  t.equal(code, 64);
  t.match(JSON.parse(stderr), { error: { code: "LAMINA_SIZE_UNALIGNED", message: /5000/, next: /8192/ } });
});

t.test("no server", async (t) => {
  for (const args of [["status"], ["volume", "ls"], ["stop"], ["events"], ["volume", "rm", "x"]]) {
    const { code, stderr } = await lamina(...args, "--data", data);
    t.equal(code, 1, args.join(" "));
    t.match(stderr, /no server runs on .*; start one with: lamina serve --data/);
  }
  const { code, stderr } = await lamina("status", "--server", "http://127.0.0.1:1");
  t.equal(code, 1);
  t.match(stderr, /cannot be reached/);
});
