/**
 * The server that is replaced: what it offers to its successor, and when it lets go.
 *
 * Invariants
 *  1. Until `commit` nothing has changed: sockets that were offered are duplicates, and a successor that fails
 *     leaves a server that goes on serving.
 *  2. Only a process of this user on this machine gets them: it has asked on the admin socket, and they are sent
 *     into the data directory.
 *  3. Under a service manager a successor of another unit is refused: the manager would count the server as gone.
 */
import { readFileSync } from "node:fs";
import { socketPath } from "../../catalog/index.js";
import { LaminaError } from "../../core/errors.js";
import { mailDescriptors } from "../../uring/descriptor-mail.js";
import { boxName, OFFER_VERSION, type OfferedSocket, type ReplacementOffer } from "./offer.js";

export interface HandOverSources {
  /** Data directory. */
  readonly directory: string;
  /** The rest of the offer. */
  describe(): Omit<ReplacementOffer, "offer" | "pid" | "sockets">;
  /** Listening sockets by descriptor. */
  sockets(): readonly (OfferedSocket & { readonly fd: number })[];
  /** Why nobody can take over now, in one sentence; null when somebody can. */
  notReady(): string | null;
}

export class HandOver {
  /** Pid of the process that takes over: this one is to end for it. */
  readonly committed: Promise<number>;
  readonly #sources: HandOverSources;
  #resolve: (pid: number) => void = () => {};
  #offeredTo = 0;

  constructor(sources: HandOverSources) {
    this.#sources = sources;
    this.committed = new Promise((resolve) => {
      this.#resolve = resolve;
    });
  }

  /** Sends the listening sockets to the box of process `pid`. Throws REPLACE_REFUSED. */
  offer(pid: number): ReplacementOffer {
    this.#refuseUnlessReady();
    refuseOtherUnit(pid);
    const sockets = this.#sources.sockets();
    const box = socketPath(this.#sources.directory, boxName(pid));
    try {
      mailDescriptors(
        box.short,
        sockets.map(({ fd }) => fd),
      );
    } catch (error) {
      throw refused(`its sockets cannot be handed to process ${pid}: ${messageOf(error)}`);
    } finally {
      box.release();
    }
    this.#offeredTo = pid;
    return {
      ...this.#sources.describe(),
      offer: OFFER_VERSION,
      pid: process.pid,
      sockets: sockets.map(({ role, asked, bound }) => ({ role, asked, bound })),
    };
  }

  /** Throws REPLACE_REFUSED. Otherwise there is no way back. */
  commit(pid: number): void {
    this.#refuseUnlessReady();
    if (pid !== this.#offeredTo) throw refused(`process ${pid} has not asked for its sockets, or not last`);
    // The answer goes out first.
    setImmediate(() => this.#resolve(pid));
  }

  #refuseUnlessReady(): void {
    const reason = this.#sources.notReady();
    if (reason !== null) throw refused(reason);
  }
}

/** A service manager has put us into a control group; whoever it is to follow must be in the same. */
function refuseOtherUnit(pid: number): void {
  if (process.env["NOTIFY_SOCKET"] === undefined) return;
  let own: string;
  let other: string;
  try {
    own = readFileSync("/proc/self/cgroup", "utf8");
    other = readFileSync(`/proc/${pid}/cgroup`, "utf8");
  } catch (error) {
    throw refused(`process ${pid} cannot be looked at: ${messageOf(error)}`);
  }
  if (own === other) return;
  throw refused(
    `it runs as a unit of a service manager, to which process ${pid} does not belong`,
    "send it SIGUSR2 instead: systemctl kill --kill-whom=main --signal=USR2 UNIT",
  );
}

export function refused(what: string, hint = "it goes on serving; see its log"): LaminaError {
  return new LaminaError("REPLACE_REFUSED", { what, hint });
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
