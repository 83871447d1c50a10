import t from "tap";
import { z } from "zod";
import { NODE_ROUTES, ROLE_ROUTES } from "../../../lib/admin/cluster-routes.js";
import { ROUTES } from "../../../lib/admin/routes.js";
import { BODIES } from "../../../lib/admin/schemas.js";
import { document, faultsOf, plain } from "./support/openapi.js";
import { startRig } from "./support/rig.js";

const METHODS = new Set(["get", "post", "patch", "delete", "put"]);

t.test("the same routes", async (t) => {
  const described = Object.entries(document["paths"]!).flatMap(([path, item]) =>
    Object.keys(item)
      .filter((key) => METHODS.has(key))
      .map((method) => `${method.toUpperCase()} ${path}`),
  );
  const open = ["GET /healthz", "GET /metrics"];
  const routes = [...ROUTES, ...ROLE_ROUTES, ...NODE_ROUTES].map(({ method, path }) => `${method} ${path}`);
  // Processes of a cluster answer some of those of a server of its own.
  t.same(described.sort(), [...new Set(routes), ...open].sort());
});

t.test("the same bodies", async (t) => {
  for (const [name, schema] of Object.entries(BODIES)) {
    const accepted = z.toJSONSchema(schema, { io: "input" });
    t.same(plain(document["components"]!["schemas"]![name]), plain(accepted), name);
  }
});

t.test("answers as they are described", async (t) => {
  const { ask, sources } = await startRig(t);
  const created = await ask("/v1/volumes", {
    method: "POST",
    body: { name: "v", size: 8192, access: [{ kind: "psk", value: "me" }] },
  });
  sources.store.bad.push({
    volume: created.json["id"] as number,
    layer: 0,
    extent: 3,
    block: 4,
    foundAt: 5,
  });
  sources.events.record("bit-rot", "v", "a block is damaged");
  const expected: [string, string][] = [
    ["/v1/status", "Status"],
    ["/v1/store", "Store"],
    ["/v1/events", "Events"],
    ["/v1/volumes", "Volumes"],
    ["/v1/volumes/v", "Volume"],
    ["/v1/volumes/nobody", "Error"],
  ];
  for (const [path, name] of expected) {
    const answer = await ask(path);
    t.same(faultsOf(name, answer.json), [], path);
    t.ok(Object.keys(answer.json).length > 0, "something was answered");
  }
  t.match((await ask("/v1/volumes/v")).json, {
    badBlocks: [{ extent: 3, block: 4 }],
    usage: { badBlocks: 1 },
  });
});
