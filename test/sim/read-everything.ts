/** Reading all of every volume, once nothing is faulty: each read is checked like any other. */
import { OpKind, type SimClient } from "./clients.js";
import type { RunConfig } from "./config.js";
import type { LifeFront } from "./fronts.js";
import { Violation } from "./violation.js";
import type { VolumeTable } from "./volume-table.js";

/** Blocks of one read. */
const READ_BLOCKS_MAX = 128;

export interface ReadHost {
  readonly config: RunConfig;
  readonly volumes: VolumeTable;
  readonly granulesPerBlock: number;
  readonly front: LifeFront | null;
  until(condition: () => boolean, what: string): Promise<void>;
}

export async function readEverything(host: ReadHost, reader: SimClient): Promise<void> {
  const { config, volumes, granulesPerBlock } = host;
  const front = host.front!;
  const step = Math.min(config.extentBlocks, READ_BLOCKS_MAX);
  for (let volume = 0; volume < config.volumes; volume++) {
    const blocks = volumes.blocks(volume);
    for (let block = 0; block < blocks; block += step) {
      const count = Math.min(step, blocks - block);
      reader.want(OpKind.Read, volume, block * granulesPerBlock, count * granulesPerBlock);
      const readable = (): boolean => volumes.usable(volume) && front.admit(reader);
      await host.until(readable, `volume ${volume} to be readable`);
      if (!reader.start(front, 0)) throw new Violation("I23", "no memory for a read at the end");
      await host.until(() => !reader.busy, `the answer to ${reader.describe()}`);
    }
  }
}
