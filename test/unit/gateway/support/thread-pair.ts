/**
 * A connection thread and the owner of a volume over one channel, each with a loop of its own, run in turns that a
 * seed decides. A side that fell asleep runs again only when it was rung: a bell that is not rung shows as a
 * pair that does not move any more.
 */
import { MIB } from "../../../../lib/core/limits.js";
import { Channel } from "../../../../lib/gateway/threads/channel.js";
import { RemoteVolume, RemoteVolumes } from "../../../../lib/gateway/threads/remote-volumes.js";
import { VolumePort } from "../../../../lib/gateway/threads/volume-port.js";
import type { Mailbox } from "../../../../lib/uring/api.js";
import { Loop, SeededRandom } from "./loop.js";
import { ModelVolume } from "./model-volume.js";

const STEPS_MAX = 20;

class Side {
  readonly loop: Loop;
  readonly mailbox: Mailbox;
  awake = true;
  rings = 0;
  #stepsLeft = 0;

  constructor(loop: Loop, mailbox: Mailbox) {
    this.loop = loop;
    this.mailbox = mailbox;
  }

  ring(): void {
    this.rings++;
    this.awake = true;
  }

  /** A part of a turn. */
  run(random: SeededRandom): void {
    if (this.#stepsLeft === 0) {
      this.mailbox.setAsleep(false);
      this.loop.post(() => this.mailbox.take());
      this.#stepsLeft = 1 + random.below(STEPS_MAX);
    }
    this.#stepsLeft--;
    if (this.loop.step()) return;
    this.#stepsLeft = 0;
    this.mailbox.setAsleep(true);
    if (this.mailbox.ready) this.mailbox.setAsleep(false);
    else this.awake = false;
  }
}

export class ThreadPair {
  readonly random: SeededRandom;
  readonly channel = Channel.create();
  readonly volume: ModelVolume;
  readonly remotes: RemoteVolumes;
  readonly remote: RemoteVolume;
  readonly port: VolumePort;
  readonly handle: number;
  readonly asker: Side;
  readonly owner: Side;
  released = 0;

  constructor(seed: number, volumeBytes = MIB) {
    this.random = new SeededRandom(seed);
    const askerLoop = new Loop(MIB, new SeededRandom(seed + 1));
    const ownerLoop = new Loop(8 * MIB, new SeededRandom(seed + 2));
    this.volume = new ModelVolume(ownerLoop, "v", volumeBytes, 7);
    this.remotes = new RemoteVolumes({
      channel: this.channel,
      ticker: askerLoop,
      ringOwner: () => this.owner.ring(),
      beforeSleep: () => {},
    });
    // The owner has a view of its own of the same memory.
    const theirs = new Channel(this.channel.memory);
    this.port = new VolumePort(theirs, ownerLoop, () => this.asker.ring());
    this.asker = new Side(askerLoop, this.remotes);
    this.owner = new Side(ownerLoop, this.port);
    this.handle = this.port.open({
      volume: this.volume,
      record: this.volume.record,
      release: () => {
        this.released++;
      },
    });
    this.remote = new RemoteVolume(
      this.remotes,
      { handle: this.handle, id: 7, preferredBytes: 4096 },
      { name: "v", readOnly: false },
    );
  }

  /** An event of the connection thread that comes from outside: it wakes it as a socket does. */
  event(run: () => void): void {
    this.asker.loop.post(run);
    this.asker.awake = true;
  }

  /** The same of the owner: the volume has something to do. */
  ownerEvent(run: () => void): void {
    this.owner.loop.post(run);
    this.owner.awake = true;
  }

  /** Runs until both sides sleep. */
  settle(): void {
    for (let steps = 0; this.asker.awake || this.owner.awake; steps++) {
      if (steps > 5_000_000) throw new Error("the pair does not settle");
      const first = this.random.chance(2) ? this.asker : this.owner;
      const side = first.awake ? first : first === this.asker ? this.owner : this.asker;
      side.run(this.random);
    }
  }
}
