import t from "tap";
import { startRig } from "./support/rig.js";

t.test("the life of a volume", async (t) => {
  const { ask } = await startRig(t);
  const created = await ask("/v1/volumes", {
    method: "POST",
    body: { name: "v1", size: 8192, description: "mine", stripeCount: 2 },
  });
  t.equal(created.status, 201);
  t.match(created.json, {
    name: "v1",
    size: 8192,
    description: "mine",
    readOnly: false,
    replicas: 1,
    stripeCount: 2,
    onFull: "wait",
    usage: { extents: 0, bytes: 0, connections: 0, badBlocks: 0 },
    badBlocks: [],
  });
  t.equal((await ask("/v1/volumes/v1")).json["id"], created.json["id"]);
  const access = [{ kind: "address", value: "10.0.0.0/8" }];
  const changed = await ask("/v1/volumes/v1", { method: "PATCH", body: { readOnly: true, access } });
  t.match(changed.json, { readOnly: true, description: "mine", access: [{ readOnly: false }] });
  t.equal(
    (await ask("/v1/volumes/v1/resize", { method: "POST", body: { size: 12_288 } })).json["size"],
    12_288,
  );
  const renamed = await ask("/v1/volumes/v1/rename", { method: "POST", body: { name: "v2" } });
  t.match(renamed.json, { name: "v2", id: created.json["id"] });
  t.equal((await ask("/v1/volumes/v1")).status, 404);
  t.equal((await ask("/v1/volumes/v2", { method: "DELETE" })).status, 204);
  t.same((await ask("/v1/volumes")).json, { volumes: [] });
});

t.test("what is refused", async (t) => {
  const { ask } = await startRig(t);
  await ask("/v1/volumes", { method: "POST", body: { name: "there", size: 8192 } });
  const before = (await ask("/v1/volumes")).json;
  const create: [unknown, number, RegExp][] = [
    [{ name: "v", size: 0 }, 400, /not a size/],
    [{ name: "v", size: -4096 }, 400, /not a size/],
    [{ name: "v", size: 4097 }, 400, /multiple of 4096/],
    [{ name: "v", size: 2 ** 60 }, 400, /.*/],
    [{ name: "v", size: "10G" }, 400, /'size'/],
    [{ name: "", size: 4096 }, 400, /not a volume name/],
    [{ name: "-v", size: 4096 }, 400, /not a volume name/],
    [{ name: "a/b", size: 4096 }, 400, /not a volume name/],
    [{ name: "x".repeat(64), size: 4096 }, 400, /not a volume name/],
    [{ name: "there", size: 4096 }, 409, /exists already/],
    [{ name: "v", size: 4096, replicas: 2 }, 409, /2 replicas/],
    [{ name: "v", size: 4096, replicas: 0 }, 400, /.*/],
    [{ name: "v", size: 4096, minReplicas: 0 }, 400, /minReplicas/],
    [{ name: "v", size: 4096, minReplicas: -1 }, 400, /minReplicas/],
    [{ name: "v", size: 4096, minReplicas: 1.5 }, 400, /minReplicas/],
    [{ name: "v", size: 4096, minReplicas: 1e300 }, 400, /minReplicas/],
    [{ name: "v", size: 4096, replicas: 1, minReplicas: 2 }, 400, /'minReplicas' is 2.*that many copies/],
    [{ name: "v", size: 4096, stripeUnit: 5000 }, 400, /.*/],
    [{ name: "v", size: 4096, stripeCount: 1e9 }, 400, /.*/],
    [{ name: "v", size: 4096, colour: "red" }, 400, /colour/],
    [{ name: "v", size: 4096, access: [{ kind: "moon", value: "x" }] }, 400, /access/],
    [{ name: "v", size: 4096, access: [{ kind: "address", value: "10.0.0.0/33" }] }, 400, /nor a prefix/],
    [{ name: "v", size: 4096, access: [{ kind: "psk", value: "a:b" }] }, 400, /no ':'/],
    [{ size: 4096 }, 400, /'name'/],
    [[], 400, /.*/],
    [null, 400, /.*/],
  ];
  for (const [body, status, message] of create) {
    const answer = await ask("/v1/volumes", { method: "POST", body });
    t.equal(answer.status, status, JSON.stringify(body));
    t.match(answer.json, { error: { code: /^LAMINA_/, message, next: /./ } });
  }
  const post = async (path: string, body: unknown): Promise<number> =>
    (await ask(path, { method: "POST", body })).status;
  t.equal(await post("/v1/volumes/there/resize", { size: 4096 }), 409, "shrinking");
  t.equal(await post("/v1/volumes/nobody/resize", { size: 4096 }), 404);
  t.equal(await post("/v1/volumes/there/rename", { name: "a b" }), 400);
  t.equal(await post("/v1/store/scrub", { pace: -1 }), 400);
  const access = [{ kind: "address", value: "everywhere" }];
  t.equal((await ask("/v1/volumes/there", { method: "PATCH", body: { access } })).status, 400);
  t.equal((await ask("/v1/volumes/nobody", { method: "DELETE" })).status, 404);
  t.equal((await ask("/v1/volumes/there", { method: "PATCH", body: { size: 1 } })).status, 400);
  t.equal((await ask("/v1/events?limit=0")).status, 400);
  t.equal((await ask("/v1/events?after=x")).status, 400);
  t.same((await ask("/v1/volumes")).json, before, "nothing was changed");
});

t.test("an open volume is not removed", async (t) => {
  const { ask, sources } = await startRig(t);
  await ask("/v1/volumes", { method: "POST", body: { name: "v", size: 8192 } });
  const open = await sources.registry.open("v");
  const refused = await ask("/v1/volumes/v", { method: "DELETE" });
  t.equal(refused.status, 409);
  t.match(refused.json, { error: { code: "LAMINA_VOLUME_IN_USE" } });
  open.release();
  t.equal((await ask("/v1/volumes/v", { method: "DELETE" })).status, 204);
});
