/** Routes of the processes of a cluster. openapi.yaml describes the same ones; a test compares. */
import { parse, type Route, withoutUndefined } from "./routes.js";
import { drainNodeBody, rebalanceBody, replaceConfigBody } from "./schemas.js";

/** What every process of a cluster can say. */
export interface RoleSources {
  status(): object;
  cluster(): Promise<object>;
}

/** What a gateway does with nodes. Each throws LaminaError. */
export interface NodeControl {
  /** Gives the seats of a node to others, or to `to`; only that in `volume`, if it is given. Says what became of each. */
  drain(node: string, wanted: { readonly volume?: string; readonly to?: string }): Promise<object>;
  /** Gives volumes further seats on nodes without one. Says what became, or would become, of each volume. */
  rebalance(wanted: { readonly volume?: string; readonly dryRun?: boolean }): Promise<object>;
  /** Takes a node out of the cluster. */
  retire(node: string): Promise<void>;
  /** `by` becomes a config node in the place of `node`. Says which ones there are now. */
  replaceConfig(node: string, by: string): Promise<object>;
}

export const ROLE_ROUTES: readonly Route<RoleSources>[] = [
  { method: "GET", path: "/v1/status", handle: (role) => ({ status: 200, body: role.status() }) },
  {
    method: "GET",
    path: "/v1/cluster",
    handle: async (role) => ({ status: 200, body: await role.cluster() }),
  },
];

export const NODE_ROUTES: readonly Route<NodeControl>[] = [
  {
    method: "POST",
    path: "/v1/cluster/nodes/{node}/drain",
    async handle(nodes, { params, body }) {
      const wanted = withoutUndefined(parse(drainNodeBody, body ?? {}));
      return { status: 200, body: await nodes.drain(params["node"]!, wanted) };
    },
  },
  {
    method: "POST",
    path: "/v1/cluster/rebalance",
    async handle(nodes, { body }) {
      return { status: 200, body: await nodes.rebalance(withoutUndefined(parse(rebalanceBody, body ?? {}))) };
    },
  },
  {
    method: "POST",
    path: "/v1/cluster/config/{node}/replace",
    async handle(nodes, { params, body }) {
      const { by } = parse(replaceConfigBody, body);
      return { status: 200, body: await nodes.replaceConfig(params["node"]!, by) };
    },
  },
  {
    method: "DELETE",
    path: "/v1/cluster/nodes/{node}",
    async handle(nodes, { params }) {
      await nodes.retire(params["node"]!);
      return { status: 204 };
    },
  },
];
