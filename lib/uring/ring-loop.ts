/**
 * Turns of the ring: one turn takes what has completed, delivers it, runs the tasks for the end of the batch
 * and submits what all of them asked for, again and again while there is something to do.
 *
 * Between turns the thread waits in the ring: it spins for a moment when waits have been short, then sleeps. So a
 * wake-up costs one or two entries into the kernel and no iteration of Node's loop. That loop has a request of its own in
 * the ring, a poll of its descriptor, and gets the thread when it has events, timers or immediates, and when the
 * ring has been idle for a while. Then the bell says when there are completions again.
 *
 * Invariants
 *  1. Nothing is delivered outside a turn, and turns do not nest.
 *  2. Whatever is asked for outside a turn is submitted by a turn that is scheduled at once.
 *  3. The bell is silent only inside a turn and while the thread waits in the ring; it is left to Node's loop
 *     only after a look at the queue with the bell on.
 *  4. The thread waits in the ring only while the poll of Node's loop is armed.
 *  5. Outside a turn, and while the thread waits, every mailbox has been told that it is asleep and was found empty
 *     afterwards, or a turn is scheduled.
 */
import type { Ticker, TickTask } from "../core/clock.js";
import { IORING_CQE_F_MORE, IORING_OP_POLL_ADD, IORING_POLL_ADD_MULTI, POLLIN, SQE_WORD } from "./abi.js";
import { type Addon, BELL_LEAVE } from "./addon.js";
import type { Mailbox } from "./api.js";
import { Batch, type EventTarget } from "./batch.js";
import { Awaited, Ring, type RingTarget } from "./ring.js";

/** A turn ends after this time even if there is more to do, so that Node's own events have theirs. */
const TURN_MS_MAX = 2;
/**
 * Spinning saves the one who waits for the answer a wake-up. With more requests than this at devices, or a bulk
 * transfer under way, there is enough to do at the next wake-up, and the CPU is better left to others: the client,
 * interrupts (docs/profile.md).
 */
const SPIN_DEVICE_REQUESTS_MAX = 1;
/**
 * Short reads alone are an exception, and are worth longer spins: no other thread works for them. With several of them a
 * thread that sleeps until they come back finds them in a heap, answers them in a heap, and gets the next ones so: the device
 * waits meanwhile.
 */
const SPIN_FOR_ONE_READ_TIMES = 4;
const SPIN_FOR_READS_TIMES = 16;

/** Told once the requests of a batch are with the kernel. */
export interface AfterSubmit {
  submitted(): void;
}

export class RingLoop implements Ticker {
  readonly ring: Ring;
  /** Times that the thread was woken by the ring. */
  wakeups = 0;
  /** Requests to devices in the ring; kept by the disks. */
  deviceRequests = 0;
  /** Those of them that are short reads. */
  shortReads = 0;
  /** Receives of long payloads in the ring; kept by the streams. */
  bulkReceives = 0;

  readonly #spinMicros: number;
  #inTurn = false;
  #scheduled = false;
  readonly #batch = new Batch();
  #holders = 0;
  #held = false;
  #closed = false;
  readonly #afterSubmit: AfterSubmit[] = [];
  #onIdle: (() => void) | null = null;
  /** The poll of Node's loop is in the ring. */
  #watching = false;
  readonly #onNodeEvent: RingTarget = {
    ringDone: () => {
      this.#watching = false;
      this.#nodeWaits = true;
    },
  };
  /** Words of other threads, and the poll of the bell that they ring. */
  readonly #mailboxes: Mailbox[] = [];
  #bellArmed = false;
  /** Node's loop has something to do. */
  #nodeWaits = false;
  readonly #onImmediate = (): void => {
    this.#scheduled = false;
    if (!this.#closed) this.#turn(false);
  };

  constructor(native: Addon, spinMicros: number) {
    this.#spinMicros = spinMicros;
    this.ring = new Ring(native, (entered, leave) => this.#onBell(entered, leave));
    this.ring.onPrepared = () => {
      if (!this.#inTurn) this.schedule();
    };
  }

  atTickEnd(task: TickTask): void {
    this.#batch.addTask(task);
    if (!this.#inTurn) this.schedule();
  }

  /** Delivers `result` to `target` in this turn or the next: a completion that needs no kernel. */
  post(target: EventTarget, result: number): void {
    this.#batch.post(target, result);
    if (!this.#inTurn) this.schedule();
  }

  /** Runs `event`, which comes from Node's loop (a timer), as the first event of a turn. */
  run(event: () => void): void {
    this.post({ eventDone: event }, 0);
  }

  /** Open sockets keep the process alive also while nothing is asked of them. */
  addHolder(): void {
    this.#holders++;
    this.schedule();
  }

  dropHolder(): void {
    this.#holders--;
    if (!this.#inTurn) this.schedule();
  }

  /** `task.submitted` once, when all that this batch asks for has been submitted. */
  afterSubmit(task: AfterSubmit): void {
    this.#afterSubmit.push(task);
    if (!this.#inTurn) this.schedule();
  }

  schedule(): void {
    if (this.#scheduled || this.#closed) return;
    this.#scheduled = true;
    setImmediate(this.#onImmediate);
  }

  /** From now on `mailbox` is looked into in each turn; whoever fills it rings `bell` when this thread sleeps. */
  addMailbox(mailbox: Mailbox, bell: number): void {
    this.#mailboxes.push(mailbox);
    if (!this.#bellArmed) this.#armBell(bell);
    this.schedule();
  }

  /** Resolves when nothing is in flight. */
  idle(): Promise<void> {
    if (this.#asked === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.#onIdle = resolve;
    });
  }

  close(): void {
    this.#closed = true;
    this.ring.close();
  }

  #onBell(entered: number, leave: number): number {
    this.wakeups++;
    if (entered !== 0) this.ring.entered(entered);
    if (this.#closed || !this.#turn(leave === 0)) return BELL_LEAVE;
    return this.ring.publish(this.#spinNow(), this.deviceRequests > 0 ? Awaited.Device : Awaited.Client);
  }

  /** Longest spin before the thread sleeps, by what is under way. */
  #spinNow(): number {
    if (this.bulkReceives > 0) return 0;
    if (this.deviceRequests === 0) return this.#spinMicros;
    if (this.deviceRequests === this.shortReads)
      return this.#spinMicros * (this.shortReads > 1 ? SPIN_FOR_READS_TIMES : SPIN_FOR_ONE_READ_TIMES);
    return this.deviceRequests <= SPIN_DEVICE_REQUESTS_MAX ? this.#spinMicros : 0;
  }

  /** True: what is prepared is to be submitted by whoever called, who then waits in the ring; only if `mayWait`. */
  #turn(mayWait: boolean): boolean {
    const ring = this.ring;
    let wait = false;
    const endsAt = performance.now() + TURN_MS_MAX;
    this.#inTurn = true;
    ring.mute();
    this.#wake();
    try {
      // Work that the kernel put off until we enter is done here.
      ring.submit();
      for (;;) {
        this.#deliver();
        if (this.#closed) return false;
        if (this.#afterSubmit.length > 0) this.#submitAndTell();
        if (this.#nodeWaits) {
          // Its turn now; the next turn watches it again.
          this.#nodeWaits = false;
          mayWait = false;
        }
        wait = mayWait && this.#mayWait();
        if (wait) return true;
        ring.submit();
        if (this.#anythingLeft()) {
          if (performance.now() < endsAt) continue;
          this.schedule();
          break;
        }
        ring.unmute();
        if (!ring.ready() && this.#fallAsleep()) break;
        ring.mute();
      }
    } finally {
      this.#inTurn = false;
      if (!this.#closed) this.#endTurn(wait);
    }
    return false;
  }

  /** Nothing is left to do until the kernel has something; Node's loop is watched. */
  #mayWait(): boolean {
    if (this.#scheduled || this.#anythingLeft()) return false;
    if (!this.#wanted) return false;
    if (!this.#watching) this.#watch();
    return this.#fallAsleep();
  }

  #watch(): void {
    this.#watching = true;
    const { ring } = this;
    const at = ring.prepare(this.#onNodeEvent);
    ring.words[at + SQE_WORD.opcodeFlagsIoprio] = IORING_OP_POLL_ADD;
    ring.words[at + SQE_WORD.fd] = ring.loopFd;
    ring.words[at + SQE_WORD.opFlags] = POLLIN;
  }

  /** One request that completes at each ring of the bell. The turn that takes it looks into the mailboxes. */
  #armBell(bell: number): void {
    this.#bellArmed = true;
    const onRing: RingTarget = {
      ringDone: (_result, flags) => {
        if ((flags & IORING_CQE_F_MORE) === 0 && !this.#closed) this.#armBell(bell);
      },
    };
    const { ring } = this;
    const at = ring.prepare(onRing);
    ring.words[at + SQE_WORD.opcodeFlagsIoprio] = IORING_OP_POLL_ADD;
    ring.words[at + SQE_WORD.fd] = bell;
    ring.words[at + SQE_WORD.len] = IORING_POLL_ADD_MULTI;
    ring.words[at + SQE_WORD.opFlags] = POLLIN;
  }

  #wake(): void {
    for (const mailbox of this.#mailboxes) mailbox.setAsleep(false);
  }

  /** False: something has come meanwhile, and the thread is awake. */
  #fallAsleep(): boolean {
    for (const mailbox of this.#mailboxes) mailbox.setAsleep(true);
    if (!this.#mailReady()) return true;
    this.#wake();
    return false;
  }

  #mailReady(): boolean {
    for (const mailbox of this.#mailboxes) if (mailbox.ready) return true;
    return false;
  }

  /** Requests in flight that somebody has asked for. */
  get #asked(): number {
    return this.ring.inFlight - (this.#watching ? 1 : 0) - (this.#bellArmed ? 1 : 0);
  }

  /** There are requests or sockets: the process stays alive for them. */
  get #wanted(): boolean {
    return this.#holders > 0 || this.#asked > 0;
  }

  #deliver(): void {
    this.ring.collect();
    this.ring.deliver();
    for (const mailbox of this.#mailboxes) mailbox.take();
    this.#batch.drain();
  }

  #submitAndTell(): void {
    this.ring.submit();
    for (const task of this.#afterSubmit) task.submitted();
    this.#afterSubmit.length = 0;
  }

  #anythingLeft(): boolean {
    return this.ring.ready() || !this.#batch.empty || this.#mailReady();
  }

  #endTurn(wait: boolean): void {
    if (!wait) {
      this.ring.unmute();
      // Also after an exception: what it left undelivered is delivered by the next turn.
      if (this.#anythingLeft() || !this.#fallAsleep()) this.schedule();
    }
    if (this.#asked === 0 && this.#onIdle !== null) {
      this.#onIdle();
      this.#onIdle = null;
    }
    const hold = this.#wanted;
    if (hold !== this.#held) {
      this.#held = hold;
      this.ring.hold(hold);
    }
  }
}
