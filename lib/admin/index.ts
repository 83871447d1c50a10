/** The admin API: HTTP resources, events, health and metrics of one server. */
export type { AdminSources, AdminStore, GatewayNumbers, Replacement, ServerFacts } from "./api.js";
export { loadToken, TOKEN_FILE } from "./auth.js";
export { ADMIN_SOCKET, type Admin, type AdminOptions, startAdmin } from "./http-server.js";
export { SCRUB_PACE_DEFAULT } from "./routes.js";
export type {
  BadBlockView,
  EventView,
  MirrorView,
  StatusView,
  StoreView,
  VolumeDetailView,
  VolumeView,
} from "./views.js";
