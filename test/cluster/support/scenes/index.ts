/** Everything that can happen to a cluster in a round of chaos. */
import { DISK_SCENES } from "./disks.js";
import { IDENTITY_SCENES } from "./identity.js";
import { PARTITION_SCENES } from "./partitions.js";
import { PORT_SCENES } from "./ports.js";
import { PROCESS_SCENES } from "./processes.js";
import { REDIS_SCENES } from "./redis.js";
import type { Scene } from "./scene.js";

export const SCENES: readonly Scene[] = [
  ...PROCESS_SCENES,
  ...PARTITION_SCENES,
  ...DISK_SCENES,
  ...IDENTITY_SCENES,
  ...PORT_SCENES,
  ...REDIS_SCENES,
];
