/** A cluster whose links and clients use TLS, as processes: it serves, heals, and does not hear who has no certificate. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { NbdClient } from "../interop/support/nbd-client.js";
import { check, Program } from "../interop/support/process.js";
import { requires } from "../interop/support/requirements.js";
import { scratchDirectory } from "../interop/support/scratch.js";
import { LAMINA } from "../interop/support/server.js";
import { makeAuthority } from "../interop/support/tls.js";
import { until } from "../interop/support/until.js";
import { Cluster } from "./support/cluster.js";

const BYTES = 8 * 2 ** 20;

t.test("links and clients over TLS", requires({ commands: ["openssl"], lamina: true }), async (t) => {
  const scratch = scratchDirectory();
  const ours = await makeAuthority(scratch, "ours");
  const [link, server, alice] = [
    await ours.issue("link", "node"),
    await ours.issue("server", "localhost"),
    await ours.issue("client", "alice"),
  ];
  const cluster = await Cluster.start(3, 1, {
    directory: scratch,
    nodeArgs: ["--link-tls", link],
    gatewayArgs: ["--link-tls", link, "--tls", "allow", "--tls-dir", server],
  });
  t.teardown(async () => cluster.dispose());
  const gateway = cluster.gateways[0]!;
  t.match(await gateway.lamina("status"), /links +encrypted/);
  t.match(await cluster.nodes[0]!.lamina("status"), /links +encrypted/);

  const tls = ["--tls-certificates", alice];
  const image = join(scratch, "image");
  await check("openssl", ["rand", "-out", image, String(BYTES)]);
  await gateway.lamina("volume", "import", "v", image, ...tls);

  await cluster.nodes[2]!.kill();
  await gateway.lamina("volume", "rm", "v");
  await gateway.lamina("volume", "import", "w", image, ...tls);
  cluster.nodes[2]!.launch();
  await cluster.nodes[2]!.ready();
  const holder = await NbdClient.connect(gateway.host, gateway.port, "w");
  t.teardown(() => holder.destroy());
  await until("the copy that was away is made equal over TLS", async () => {
    const { volumes } = await cluster.status();
    return volumes.find(({ name }) => name === "w")!.members.every(({ state }) => state === "insync");
  });
  await holder.close();
  const copy = join(scratch, "copy");
  await gateway.lamina("volume", "export", "w", copy, ...tls);
  t.ok(readFileSync(copy).equals(readFileSync(image)));

  const plain = new Program(LAMINA, [
    ...["gateway", "--data", join(scratch, "plain"), "--listen", "127.0.0.1:0"],
    ...["--cluster", cluster.nodes.map(({ address }) => address).join(",")],
    ...["--key", join(scratch, "cluster.key")],
  ]);
  t.teardown(() => plain.end("SIGKILL"));
  await until("a gateway without a certificate finds nobody who speaks to it", () =>
    /waits for the nodes/.test(plain.stderr),
  );
  await until("and the nodes say so", () => /turned away: TLS failed/.test(cluster.nodes[0]!.program.stderr));
  t.notMatch(plain.stdout, /lamina ready/);
  await plain.end("SIGTERM");

  const node = cluster.nodes[0]!.program;
  node.child.kill("SIGHUP");
  await until("certificates are read anew", () => /TLS files were read anew/.test(node.stderr));
  t.same(await cluster.end(), []);
});
