/** npm run sim: the command on the real program. */
import { simulate } from "./command.js";
import { takeNativeChecksums } from "./native.js";
import { storeSubject } from "./real-store.js";

await takeNativeChecksums();
process.exitCode = await simulate(process.argv.slice(2), storeSubject, (text) => console.log(text));
