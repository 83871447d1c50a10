/** A process that holds a private redis-server in the directory it is given until it is killed. */
import { PrivateRedis } from "../../../../lib/catalog/index.js";

const redis = new PrivateRedis(process.argv[2]!, { restarted: () => {} });
await redis.start();
setInterval(() => {}, 1000);
