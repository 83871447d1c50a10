/** What a run measures, how often, and what it is reported with. */
import type { Medium, Row } from "./rows.js";

export interface RunPlan {
  readonly rows: readonly Row[];
  readonly media: readonly { readonly medium: Medium; readonly folder: string }[];
  readonly rounds: number;
  readonly seconds: number;
  readonly sizeBytes: number;
  /** Path of the results without their extension; null: they are only printed. */
  readonly out: string | null;
}

export interface RunFacts {
  readonly when: string;
  readonly command: string;
  readonly commit: string;
  readonly machine: Readonly<Record<string, string | number>>;
  readonly versions: Readonly<Record<string, string>>;
  readonly seconds: number;
  readonly rounds: number;
  readonly sizeBytes: number;
}

/** `names`: media, separated by commas. Throws for one that has no folder. */
export function mediaOf(names: string, folders: Readonly<Record<string, string>>): RunPlan["media"] {
  return names.split(",").map((medium) => {
    const folder = folders[medium];
    if (folder === undefined) throw new Error(`'${medium}' is not a medium: ram or disk`);
    return { medium: medium as Medium, folder };
  });
}
