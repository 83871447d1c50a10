/** The routes of the API. openapi.yaml describes the same ones; a test compares. */
import type { z } from "zod";
import { LaminaError } from "../core/errors.js";
import type { AccessRule } from "../replica/record.js";
import type { CreateVolume } from "../volume/registry-api.js";
import type { AdminSources, Replacement, VolumeSources } from "./api.js";
import {
  changeVolumeBody,
  createVolumeBody,
  eventsQuery,
  renameVolumeBody,
  replacementBody,
  resizeVolumeBody,
  scrubBody,
} from "./schemas.js";
import { eventView, statusView, storeView, volumeDetailView, volumeView } from "./views.js";

export interface RouteRequest {
  /** Decoded parameters of the path. */
  readonly params: Readonly<Record<string, string>>;
  readonly query: Readonly<Record<string, string>>;
  /** Parsed JSON; undefined without a body. */
  readonly body: unknown;
}

export interface RouteAnswer {
  readonly status: 200 | 201 | 202 | 204;
  readonly body?: unknown;
}

export interface Route<Sources = AdminSources> {
  readonly method: "GET" | "POST" | "PATCH" | "DELETE";
  /** Segments in braces are parameters. */
  readonly path: string;
  /** Only on the unix socket: it concerns processes of this machine. */
  readonly local?: boolean;
  handle(sources: Sources, request: RouteRequest): RouteAnswer | Promise<RouteAnswer>;
}

/** Scrub pace when none is given: slow enough to go unnoticed, a TiB in about 9 hours. */
export const SCRUB_PACE_DEFAULT = 32 * 1024 * 1024;
const EVENTS_LIMIT_DEFAULT = 100;

/** What every process answers. */
export const EVENT_ROUTES: readonly Route<Pick<VolumeSources, "events">>[] = [
  {
    method: "GET",
    path: "/v1/events",
    handle(sources, request) {
      const { after, limit } = parse(eventsQuery, request.query);
      const events = sources.events.after(after ?? "0-0", limit ?? EVENTS_LIMIT_DEFAULT);
      return { status: 200, body: { events: events.map(eventView) } };
    },
  },
];

/** What every process with a device answers. */
export const STORE_ROUTES: readonly Route<Pick<AdminSources, "store">>[] = [
  {
    method: "GET",
    path: "/v1/store",
    handle: (sources) => ({ status: 200, body: storeView(sources.store.stats()) }),
  },
  {
    method: "POST",
    path: "/v1/store/scrub",
    handle(sources, request) {
      const { pace } = parse(scrubBody, request.body ?? {});
      sources.store.startScrub(pace ?? SCRUB_PACE_DEFAULT);
      return { status: 202, body: { scrub: sources.store.stats().scrub } };
    },
  },
];

/** What every server that volumes can be made and changed at answers. */
export const VOLUME_ROUTES: readonly Route<VolumeSources>[] = [
  ...EVENT_ROUTES,
  {
    method: "GET",
    path: "/v1/volumes",
    handle({ registry }) {
      const volumes = registry.list().map((record) => volumeView(record, registry.usage(record.id)));
      return { status: 200, body: { volumes } };
    },
  },
  {
    method: "POST",
    path: "/v1/volumes",
    async handle(sources, request) {
      const { name, size, description, readOnly, access, ...policy } = parse(createVolumeBody, request.body);
      refuseWithoutList(sources, name, access ?? []);
      const spec: Writable<CreateVolume> = { name, size, policy: withoutUndefined(policy) };
      const record = await sources.registry.create({
        ...spec,
        ...withoutUndefined({ description, readOnly, access }),
      });
      return { status: 201, body: volumeDetailView(record, sources) };
    },
  },
  {
    method: "GET",
    path: "/v1/volumes/{name}",
    handle(sources, { params }) {
      const name = params["name"]!;
      const record = sources.registry.byName(name);
      if (record === undefined) throw new LaminaError("VOLUME_UNKNOWN", { name });
      return { status: 200, body: volumeDetailView(record, sources) };
    },
  },
  {
    method: "PATCH",
    path: "/v1/volumes/{name}",
    async handle(sources, { params, body }) {
      const patch = withoutUndefined(parse(changeVolumeBody, body));
      if (patch.access !== undefined) refuseWithoutList(sources, params["name"]!, patch.access);
      const record = await sources.registry.update(params["name"]!, patch);
      return { status: 200, body: volumeDetailView(record, sources) };
    },
  },
  {
    method: "DELETE",
    path: "/v1/volumes/{name}",
    async handle({ registry }, { params }) {
      await registry.remove(params["name"]!);
      return { status: 204 };
    },
  },
  {
    method: "POST",
    path: "/v1/volumes/{name}/rename",
    async handle(sources, { params, body }) {
      const { name } = parse(renameVolumeBody, body);
      const record = await sources.registry.rename(params["name"]!, name);
      return { status: 200, body: volumeDetailView(record, sources) };
    },
  },
  {
    method: "POST",
    path: "/v1/volumes/{name}/resize",
    async handle(sources, { params, body }) {
      const { size } = parse(resizeVolumeBody, body);
      const record = await sources.registry.resize(params["name"]!, size);
      return { status: 200, body: volumeDetailView(record, sources) };
    },
  },
];

export const ROUTES: readonly Route[] = [
  {
    method: "GET",
    path: "/v1/status",
    async handle(sources) {
      return { status: 200, body: statusView(sources, await sources.mirror()) };
    },
  },
  ...STORE_ROUTES,
  ...VOLUME_ROUTES,
  {
    method: "POST",
    path: "/v1/replacement",
    local: true,
    handle(sources, { body }) {
      const { pid } = parse(replacementBody, body);
      return { status: 200, body: replacementOf(sources).offer(pid) };
    },
  },
  {
    method: "POST",
    path: "/v1/replacement/commit",
    local: true,
    handle(sources, { body }) {
      const { pid } = parse(replacementBody, body);
      replacementOf(sources).commit(pid);
      return { status: 202, body: {} };
    },
  },
];

/** Throws REPLACE_REFUSED. */
function replacementOf({ replacement }: AdminSources): Replacement {
  if (replacement !== undefined) return replacement;
  throw new LaminaError("REPLACE_REFUSED", {
    what: "it does not offer it",
    hint: "stop it, and start another",
  });
}

/** Throws ACCESS_LIST_REQUIRED. */
function refuseWithoutList({ server }: VolumeSources, name: string, access: readonly AccessRule[]): void {
  if (server.accessListsRequired && access.length === 0)
    throw new LaminaError("ACCESS_LIST_REQUIRED", { name });
}

export interface Match<Sources> {
  readonly route: Route<Sources>;
  readonly params: Readonly<Record<string, string>>;
}

/** Throws PATH_UNKNOWN or METHOD_UNKNOWN. */
export function matchRoute<Sources>(
  routes: readonly Route<Sources>[],
  method: string,
  path: string,
): Match<Sources> {
  const segments = path.split("/");
  let pathKnown = false;
  for (const route of routes) {
    const params = matchPath(route.path.split("/"), segments);
    if (params === null) continue;
    if (route.method === method) return { route, params };
    pathKnown = true;
  }
  if (pathKnown) throw new LaminaError("METHOD_UNKNOWN", { method, path });
  throw new LaminaError("PATH_UNKNOWN", { path });
}

function matchPath(pattern: readonly string[], segments: readonly string[]): Record<string, string> | null {
  if (pattern.length !== segments.length) return null;
  const params: Record<string, string> = {};
  for (let i = 0; i < pattern.length; i++) {
    const part = pattern[i]!;
    if (part.startsWith("{")) {
      const value = decode(segments[i]!);
      if (value === null) return null;
      params[part.slice(1, -1)] = value;
    } else if (part !== segments[i]) {
      return null;
    }
  }
  return params;
}

function decode(segment: string): string | null {
  try {
    return decodeURIComponent(segment);
  } catch {
    return null;
  }
}

/** Throws ARGUMENT_INVALID with the first thing that is wrong. */
export function parse<T extends z.ZodType>(schema: T, value: unknown): z.infer<T> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const where = issue === undefined || issue.path.length === 0 ? "the request" : `'${issue.path.join(".")}'`;
  throw new LaminaError("ARGUMENT_INVALID", {
    what: `${where} cannot be used: ${issue?.message ?? "not understood"}`,
    hint: "see lib/admin/openapi.yaml for what is expected",
  });
}

type Writable<T> = { -readonly [Key in keyof T]: T[Key] };
type Defined<T> = { [Key in keyof T]: Exclude<T[Key], undefined> };

/** Leaves out what was not given: "not given" and "undefined" are two things to the registry. */
export function withoutUndefined<T extends object>(value: T): Partial<Defined<T>> {
  return Object.fromEntries(Object.entries(value).filter(([, field]) => field !== undefined)) as Partial<
    Defined<T>
  >;
}
