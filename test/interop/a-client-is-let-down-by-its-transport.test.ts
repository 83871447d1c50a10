/**
 * Every client of the field on every way in: TCP, a unix socket, and TLS. One server listens on all of them; each
 * client writes something and reads it back, or compares.
 */
import { rmSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { verifiedLoad } from "./support/fio.js";
import { check, run } from "./support/process.js";
import { requires } from "./support/requirements.js";
import { removeScratch, scratchDirectory } from "./support/scratch.js";
import { LaminaServer } from "./support/server.js";
import { makeAuthority } from "./support/tls.js";

const MIB = 2 ** 20;
const VOLUME_MIB = 16;

/** A way in, as each family of clients is told of it. */
interface Way {
  readonly name: string;
  /** libnbd's URI of a volume. */
  uri(volume: string): string;
  /** For fio, which may name no files of its own. */
  fioUri(volume: string): string;
  /** QEMU's options of the volume as a raw node, and what goes before them. */
  qemu(volume: string): { readonly node: string; readonly objects: readonly string[] };
  /** nbd-client's. */
  readonly nbdClient: readonly string[];
}

function ways(port: number, socket: string, keys: string): readonly Way[] {
  const node = (server: string, volume: string): string =>
    `driver=raw,file.driver=nbd,${server},file.export=${volume}`;
  const inet = `file.server.type=inet,file.server.host=localhost,file.server.port=${port}`;
  const uriOfTcp = (volume: string): string => `nbd://127.0.0.1:${port}/${volume}`;
  const uriOfUnix = (volume: string): string => `nbd+unix:///${volume}?socket=${socket}`;
  return [
    {
      name: "TCP",
      uri: uriOfTcp,
      fioUri: uriOfTcp,
      qemu: (volume) => ({ node: node(inet, volume), objects: [] }),
      nbdClient: ["127.0.0.1", String(port)],
    },
    {
      name: "a unix socket",
      uri: uriOfUnix,
      fioUri: uriOfUnix,
      qemu: (volume) => ({
        node: node(`file.server.type=unix,file.server.path=${socket}`, volume),
        objects: [],
      }),
      nbdClient: ["-unix", socket],
    },
    {
      name: "TLS",
      uri: (volume) => `nbds://localhost:${port}/${volume}?tls-certificates=${keys}`,
      fioUri: (volume) => `nbds://localhost:${port}/${volume}?tls-verify-peer=false`,
      qemu: (volume) => ({
        node: `${node(inet, volume)},file.tls-creds=keys`,
        objects: ["--object", `tls-creds-x509,id=keys,endpoint=client,dir=${keys}`],
      }),
      nbdClient: ["-x", "-A", join(keys, "ca-cert.pem"), "-H", "localhost", "localhost", String(port)],
    },
  ];
}

const COMMANDS = ["nbdsh", "nbdcopy", "qemu-io", "qemu-img", "fio", "nbd-client", "openssl"];

/** nbdsh takes the first python3 of the PATH; the module belongs to the system's. */
const SYSTEM_PYTHON = { PATH: "/usr/bin:/bin:/usr/sbin:/sbin" };

/** libnbd with its own checks switched off: something legal, something illegal, and that it goes on. */
const shell = (uri: string): string => `
import errno
h.set_strict_mode(0)
h.set_uri_allow_local_file(True)
h.connect_uri("${uri}")
h.pwrite(b"shell" * 1024, 512)
h.flush()
try:
    h.pread(4096, h.get_size())
    raise AssertionError("a read past the end was accepted")
except nbd.Error as error:
    assert error.errnum == errno.EINVAL, error
assert h.pread(5120, 512) == b"shell" * 1024
print("as written")
`;

t.test("every client on every way in", requires({ commands: COMMANDS, lamina: true }), async (t) => {
  const folder = scratchDirectory();
  t.teardown(() => removeScratch(folder));
  const authority = await makeAuthority(folder, "authority");
  const [serverKeys, keys] = [
    await authority.issue("server", "localhost"),
    await authority.issue("client", "alice"),
  ];
  // Who connects is not verified here: fio has no certificate.
  rmSync(join(serverKeys, "ca-cert.pem"));
  const socket = join(folder, "nbd.sock");
  const args = ["--listen", `unix:${socket}`, "--tls", "allow", "--tls-dir", serverKeys, "--redis", "none"];
  const server = new LaminaServer({ capacity: "1G", args });
  t.teardown(async () => server.dispose());
  await server.start();
  const image = join(folder, "image");
  await check("openssl", ["rand", "-out", image, String(VOLUME_MIB * MIB)]);

  for (const [i, way] of ways(server.port, socket, keys).entries()) {
    const volume = `v${i}`;
    await server.createVolume(volume, `${VOLUME_MIB}M`);
    const { node, objects } = way.qemu(volume);

    await t.test(`over ${way.name}`, async (t) => {
      t.match(
        await check("nbdsh", ["-c", shell(way.uri(volume))], { env: SYSTEM_PYTHON }),
        /as written/,
        "nbdsh",
      );

      const commands = [
        "write -P 7 -f 64k 128k",
        "write -z -u 96k 32k",
        "read -P 7 64k 32k",
        "read -P 0 96k 32k",
      ];
      const io = [...objects, "--image-opts", ...commands.flatMap((command) => ["-c", command]), node];
      t.notMatch(await check("qemu-io", io), /failed|error/i, "qemu-io");

      await check("nbdcopy", ["--flush", "--connections=4", image, way.uri(volume)]);
      const source = `driver=raw,file.driver=file,file.filename=${image}`;
      const compared = await check("qemu-img", ["compare", ...objects, "--image-opts", source, node]);
      t.match(compared, /identical/, "what nbdcopy wrote on four connections is what qemu-img reads");

      const jobs = await verifiedLoad(way.fioUri(volume), folder, { jobs: 2, partMib: 8, writtenMib: 4 });
      t.same(
        jobs.map(({ error }) => error),
        [0, 0],
        "fio",
      );

      const listed = await run("nbd-client", ["-l", ...way.nbdClient]);
      t.match(listed.stdout + listed.stderr, volume, "nbd-client");
    });
  }
  await server.stop();
});
