/** The simulated cluster: `--help` says how it is asked. */
import { takeNativeChecksums } from "../native.js";
import { simulateCluster } from "./command.js";

await takeNativeChecksums();
process.exitCode = await simulateCluster(process.argv.slice(2), (text) => console.log(text));
