/**
 * Range locks over the blocks of one volume: exclusive for writes, shared for reads.
 *
 * Invariants
 *  1. Two locks that overlap are never both granted unless both are shared.
 *  2. First come, first served: a lock waits for every conflicting lock asked for before it, granted or not.
 *     So overlapping requests take effect in the order of their submission, and no one starves.
 *  3. `blockers` of a waiting lock is the number of (conflicting earlier lock, common bucket) pairs still
 *     there; it is granted when that reaches zero.
 *
 * The address space is cut into regions of 256 blocks, hashed into buckets; a lock has one node in the bucket
 * of each region it touches, in order of arrival. A request of up to 1 MiB has at most two nodes, so both
 * operations cost a handful of comparisons. Nodes are pooled.
 */
import { assert } from "../core/assert.js";

const REGION_SHIFT = 8;
const BUCKETS = 1024;
/** Longest lock: its regions fall into different buckets. */
export const LOCK_BLOCKS_MAX = (BUCKETS - 1) << REGION_SHIFT;

export interface LockOwner {
  /** Called once when a lock that had to wait is granted; never from inside `acquire`. */
  lockGranted(): void;
}

class Node {
  lock: RangeLock | null = null;
  bucket = 0;
  previous: Node | null = null;
  next: Node | null = null;
  /** Next node of the same lock, or next free node. */
  sibling: Node | null = null;
}

/** Part of its owner; reused for one range after another. */
export class RangeLock {
  first = 0;
  /** One behind the last block. */
  end = 0;
  exclusive = false;
  blockers = 0;
  nodes: Node | null = null;
  nextGranted: RangeLock | null = null;
  readonly owner: LockOwner;

  constructor(owner: LockOwner) {
    this.owner = owner;
  }
}

export class RangeLocks {
  readonly #heads: (Node | null)[] = new Array<Node | null>(BUCKETS).fill(null);
  readonly #tails: (Node | null)[] = new Array<Node | null>(BUCKETS).fill(null);
  #free: Node | null = null;
  #held = 0;
  #grantedFirst: RangeLock | null = null;
  #grantedLast: RangeLock | null = null;
  #granting = false;

  /** Locks granted or waiting. */
  get size(): number {
    return this.#held;
  }

  /** True: granted at once. False: `owner.lockGranted()` will be called. */
  acquire(lock: RangeLock, first: number, end: number, exclusive: boolean): boolean {
    assert(lock.nodes === null, "a range lock is taken once");
    assert(first < end && end - first <= LOCK_BLOCKS_MAX, "range of a lock");
    lock.first = first;
    lock.end = end;
    lock.exclusive = exclusive;
    lock.blockers = 0;
    this.#held++;
    const lastRegion = Math.floor((end - 1) / (1 << REGION_SHIFT));
    for (let region = Math.floor(first / (1 << REGION_SHIFT)); region <= lastRegion; region++) {
      const bucket = region & (BUCKETS - 1);
      for (let node = this.#heads[bucket]!; node !== null; node = node.next!) {
        if (conflict(node.lock!, lock)) lock.blockers++;
      }
      this.#append(lock, bucket);
    }
    return lock.blockers === 0;
  }

  /** Gives the range back; locks that waited for it only are granted, in the order of their asking. */
  release(lock: RangeLock): void {
    assert(lock.nodes !== null && lock.blockers === 0, "released a range lock that was not granted");
    this.#held--;
    let node: Node | null = lock.nodes;
    lock.nodes = null;
    while (node !== null) {
      for (let later = node.next; later !== null; later = later.next) {
        const waiting: RangeLock = later.lock!;
        if (conflict(lock, waiting)) {
          waiting.blockers--;
          if (waiting.blockers === 0) this.#queueGrant(waiting);
        }
      }
      const sibling: Node | null = node.sibling;
      this.#remove(node);
      node = sibling;
    }
    if (!this.#granting) this.#grant();
  }

  #queueGrant(lock: RangeLock): void {
    lock.nextGranted = null;
    if (this.#grantedLast === null) this.#grantedFirst = lock;
    else this.#grantedLast.nextGranted = lock;
    this.#grantedLast = lock;
  }

  /** A granted owner may release at once; that only lengthens the queue, so the stack stays flat. */
  #grant(): void {
    this.#granting = true;
    for (;;) {
      const lock = this.#grantedFirst;
      if (lock === null) break;
      this.#grantedFirst = lock.nextGranted;
      if (this.#grantedFirst === null) this.#grantedLast = null;
      lock.owner.lockGranted();
    }
    this.#granting = false;
  }

  #append(lock: RangeLock, bucket: number): void {
    let node = this.#free;
    if (node === null) node = new Node();
    else this.#free = node.sibling;
    node.lock = lock;
    node.bucket = bucket;
    node.sibling = lock.nodes;
    lock.nodes = node;
    const tail = this.#tails[bucket]!;
    node.previous = tail;
    node.next = null;
    if (tail === null) this.#heads[bucket] = node;
    else tail.next = node;
    this.#tails[bucket] = node;
  }

  #remove(node: Node): void {
    if (node.previous === null) this.#heads[node.bucket] = node.next;
    else node.previous.next = node.next;
    if (node.next === null) this.#tails[node.bucket] = node.previous;
    else node.next.previous = node.previous;
    node.lock = null;
    node.previous = null;
    node.next = null;
    node.sibling = this.#free;
    this.#free = node;
  }
}

function conflict(a: RangeLock, b: RangeLock): boolean {
  return (a.exclusive || b.exclusive) && a.first < b.end && b.first < a.end;
}
