/** Version of the program, from package.json beside the sources. */
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

/** Directory that holds package.json: two levels up from here, three from the built file. */
function findRoot(): string {
  let directory = dirname(fileURLToPath(import.meta.url));
  for (;;) {
    try {
      readFileSync(join(directory, "package.json"));
      return directory;
    } catch {
      const parent = dirname(directory);
      if (parent === directory) throw new Error("package.json is missing above the program");
      directory = parent;
    }
  }
}

export const ROOT: string = findRoot();

interface Manifest {
  readonly version: string;
}

export const VERSION: string = (JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8")) as Manifest)
  .version;
