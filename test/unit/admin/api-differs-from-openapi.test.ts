import { readFileSync } from "node:fs";
import t from "tap";
import { parse } from "yaml";
import { z } from "zod";
import { ROUTES } from "../../../lib/admin/routes.js";
import { BODIES } from "../../../lib/admin/schemas.js";
import { startRig } from "./support/rig.js";

type Tree = { readonly [key: string]: Tree };

const document = parse(
  readFileSync(new URL("../../../lib/admin/openapi.yaml", import.meta.url), "utf8"),
) as Tree;
const METHODS = new Set(["get", "post", "patch", "delete", "put"]);

t.test("the same routes", async (t) => {
  const described = Object.entries(document["paths"]!).flatMap(([path, item]) =>
    Object.keys(item)
      .filter((key) => METHODS.has(key))
      .map((method) => `${method.toUpperCase()} ${path}`),
  );
  const open = ["GET /healthz", "GET /metrics"];
  t.same(described.sort(), [...ROUTES.map((route) => `${route.method} ${route.path}`), ...open].sort());
});

const PROSE = new Set(["description", "$schema", "minimum", "maximum", "exclusiveMinimum"]);

/** Follows references, drops prose and what only one of the two notations writes. */
function plain(schema: unknown): unknown {
  if (Array.isArray(schema)) return schema.map(plain);
  if (typeof schema !== "object" || schema === null) return schema;
  const tree = schema as Tree;
  const reference = tree["$ref"] as unknown;
  if (typeof reference === "string") {
    return plain(
      reference
        .slice(2)
        .split("/")
        .reduce<Tree>((at, key) => at[key]!, document),
    );
  }
  const entries = Object.entries(tree)
    .filter(([key, value]) => typeof value === "object" || !PROSE.has(key))
    .map(([key, value]) => [key, plain(value)] as const);
  return Object.fromEntries(entries);
}

t.test("the same bodies", async (t) => {
  for (const [name, schema] of Object.entries(BODIES)) {
    const accepted = z.toJSONSchema(schema, { io: "input" });
    t.same(plain(document["components"]!["schemas"]![name]), plain(accepted), name);
  }
});

/** Checks required properties and types, as deep as the description goes. */
function conforms(schema: Tree, value: unknown, where: string): string[] {
  const resolved = plain(schema) as Tree & { required?: readonly string[] };
  const type = resolved["type"] as unknown as string | string[] | undefined;
  const actual =
    value === null
      ? "null"
      : Array.isArray(value)
        ? "array"
        : Number.isInteger(value)
          ? "integer"
          : typeof value;
  const allowed = type === undefined ? [actual] : [type].flat();
  if (!allowed.includes(actual) && !(actual === "integer" && allowed.includes("number"))) {
    return [`${where} is ${actual}, not ${allowed.join(" or ")}`];
  }
  if (actual === "array") {
    return (value as unknown[]).flatMap((item, i) => conforms(resolved["items"]!, item, `${where}[${i}]`));
  }
  if (actual !== "object" || resolved["properties"] === undefined) return [];
  const fields = value as Record<string, unknown>;
  const missing = (resolved.required ?? []).filter((key) => !(key in fields));
  const unknown = Object.keys(fields).filter((key) => !(key in resolved["properties"]!));
  return [
    ...missing.map((key) => `${where}.${key} is missing`),
    ...unknown.map((key) => `${where}.${key} is not described`),
    ...Object.entries(resolved["properties"]!).flatMap(([key, property]) =>
      key in fields ? conforms(property, fields[key], `${where}.${key}`) : [],
    ),
  ];
}

t.test("answers as they are described", async (t) => {
  const { ask, sources } = await startRig(t);
  const schemas = document["components"]!["schemas"]!;
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
    t.same(conforms(schemas[name]!, answer.json, name), [], path);
    t.ok(Object.keys(answer.json).length > 0, "something was answered");
  }
  t.match((await ask("/v1/volumes/v")).json, {
    badBlocks: [{ extent: 3, block: 4 }],
    usage: { badBlocks: 1 },
  });
});
