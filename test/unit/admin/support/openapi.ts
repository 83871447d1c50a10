/** The description of the API, and whether what a server answers is as described. */
import { readFileSync } from "node:fs";
import { parse } from "yaml";

export type Tree = { readonly [key: string]: Tree };

export const document = parse(
  readFileSync(new URL("../../../../lib/admin/openapi.yaml", import.meta.url), "utf8"),
) as Tree;

const PROSE = new Set(["description", "$schema", "minimum", "maximum", "exclusiveMinimum"]);

/** Follows references, drops prose and what only one of the two notations writes. */
export function plain(schema: unknown): unknown {
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

/** Checks required properties and types, as deep as the description goes. */
export function conforms(schema: Tree, value: unknown, where: string): string[] {
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

/** What of an answer is not as the schema of that name says; empty: all is. */
export function faultsOf(schema: string, answer: unknown): string[] {
  return conforms(document["components"]!["schemas"]![schema]!, answer, schema);
}
