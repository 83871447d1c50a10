/** The admin API: HTTP resources, events, health and metrics of one server. */
export type {
  AdminSources,
  AdminStore,
  GatewayNumbers,
  Replacement,
  ServerFacts,
  VolumeSources,
} from "./api.js";
export { loadToken, TOKEN_FILE } from "./auth.js";
export { NODE_ROUTES, type NodeControl, ROLE_ROUTES, type RoleSources } from "./cluster-routes.js";
export {
  ADMIN_SOCKET,
  type Admin,
  type AdminFace,
  type AdminOptions,
  answering,
  startAdmin,
  startAdminOf,
} from "./http-server.js";
export { EVENT_ROUTES, type Route, SCRUB_PACE_DEFAULT, STORE_ROUTES, VOLUME_ROUTES } from "./routes.js";
export type {
  BadBlockView,
  EventView,
  MirrorView,
  ProcessView,
  StatusView,
  StoreView,
  VolumeDetailView,
  VolumeView,
} from "./views.js";
export { mirrorNotice, viewMirror, viewScrub } from "./views.js";
