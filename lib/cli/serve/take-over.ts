/**
 * The server that replaces another one: gets its listening sockets while that one still serves, makes sure of all
 * that can be made sure of, and only then has it end.
 *
 * The sockets are never closed in between: who connects meanwhile waits in their backlog.
 */
import { existsSync, realpathSync, rmSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "pino";
import { socketPath } from "../../catalog/index.js";
import { LaminaError } from "../../core/errors.js";
import { FORMAT_VERSION } from "../../store/index.js";
import { addressText } from "../../uring/address.js";
import type { Engine, ListenAddress } from "../../uring/api.js";
import { DescriptorBox } from "../../uring/descriptor-mail.js";
import { boundAddress } from "../../uring/inherited.js";
import { closeListening } from "../../uring/listening.js";
import { AdminClient, ApiError } from "../client.js";
import { type HeldDirectory, holdDirectory, holderOf, STORE_FILE } from "./data-directory.js";
import { refused } from "./hand-over.js";
import { boxName, type OfferedSocket, type ReplacementOffer, replacementOffer } from "./offer.js";
import type { InheritedListener, ServeOptions } from "./options.js";
import { checkRedis } from "./redis.js";

/** How often it is looked whether the old server has let go. */
const POLL_MS = 5;
/** After this, and then as often, the log says what is waited for. It is never given up: nobody else could serve. */
const WAIT_TOLD_MS = 10_000;

interface Taken extends OfferedSocket {
  readonly fd: number;
  used: boolean;
}

export class TakeOver {
  readonly #client: AdminClient;
  readonly #offer: ReplacementOffer;
  readonly #sockets: Taken[];
  #committed = false;

  private constructor(client: AdminClient, offer: ReplacementOffer, sockets: Taken[]) {
    this.#client = client;
    this.#offer = offer;
    this.#sockets = sockets;
  }

  /** Asks the server of a data directory for its sockets. Null when none runs. Throws REPLACE_REFUSED. */
  static async begin(directory: string): Promise<TakeOver | null> {
    if (!existsSync(directory) || holderOf(directory) === null) return null;
    const client = new AdminClient({ data: directory });
    const name = socketPath(directory, boxName(process.pid));
    rmSync(name.real, { force: true });
    const box = new DescriptorBox(name.short);
    try {
      const answer = await ask(client, "/v1/replacement");
      const descriptors = box.take();
      const parsed = replacementOffer.safeParse(answer);
      if (!parsed.success || parsed.data.sockets.length !== descriptors.length) {
        throw refused("its offer is not understood by this version", "stop it, and start this one");
      }
      const { sockets } = parsed.data;
      const taken = descriptors.map((fd, i) => ({ ...sockets[i]!, fd, used: false }));
      return new TakeOver(client, parsed.data, taken);
    } finally {
      box.close();
      name.release();
    }
  }

  get pid(): number {
    return this.#offer.pid;
  }

  /** The old server is ending, or has ended. */
  get committed(): boolean {
    return this.#committed;
  }

  /** Sockets that the service manager had given the old server. */
  inherited(): InheritedListener[] {
    const theirs = this.#sockets.filter(({ role, asked }) => role === "nbd" && asked === null);
    return theirs.map((socket) => {
      socket.used = true;
      return { listen: { kind: "fd", fd: socket.fd }, bound: boundAddress(socket.fd) };
    });
  }

  /** The old server's socket for an address, to be listened on in its place; null when it has none. */
  listening(address: ListenAddress): ListenAddress | null {
    const socket = this.#take("nbd", addressText(address));
    return socket === null ? null : { kind: "fd", fd: socket.fd, unlink: address.kind === "unix" };
  }

  admin({ host, port }: ServeOptions["admin"]): number | null {
    return this.#take("admin", addressText({ kind: "tcp", host, port }))?.fd ?? null;
  }

  adminLocal(): number | null {
    return this.#sockets.find(({ role }) => role === "admin-local")?.fd ?? null;
  }

  /** Whether `options` can go on with what the old server has open. Throws; that one goes on serving then. */
  async check(options: ServeOptions, log: Logger): Promise<void> {
    const { device, formatVersion, clusterId, withoutAccessList } = this.#offer;
    const wanted = options.device ?? join(options.data, STORE_FILE);
    if (!existsSync(wanted) || realpathSync(wanted) !== device) {
      throw refused(`it has ${device} open, and this one is asked for ${wanted}`, "ask for the same device");
    }
    if (formatVersion > FORMAT_VERSION) {
      throw new LaminaError("DEVICE_NEWER", { path: device, found: formatVersion, known: FORMAT_VERSION });
    }
    const [name] = withoutAccessList;
    if (options.guardedAddress !== null && name !== undefined) {
      throw new LaminaError("ACCESS_LIST_MISSING", { name, address: options.guardedAddress });
    }
    await checkRedis(options.redis, clusterId, log);
  }

  /** The point of no return. Throws REPLACE_REFUSED; the old server goes on serving then. */
  async commit(log: Logger): Promise<void> {
    await ask(this.#client, "/v1/replacement/commit");
    this.#committed = true;
    log.info(
      { old: this.pid, version: this.#offer.version },
      "the old server finishes what is in flight and ends",
    );
  }

  /** The data directory, as soon as the old server has let go of it and of everything in it. */
  async hold(engine: Engine, directory: string, log: Logger): Promise<HeldDirectory> {
    let tellAt = performance.now() + WAIT_TOLD_MS;
    for (;;) {
      try {
        return await holdDirectory(engine, directory);
      } catch (error) {
        if (!(error instanceof LaminaError) || error.code !== "DATA_DIRECTORY_BUSY") throw error;
      }
      if (performance.now() > tellAt) {
        tellAt += WAIT_TOLD_MS;
        log.warn({ old: this.pid }, `waiting for process ${this.pid} to let go of ${directory}`);
      }
      await sleep(POLL_MS);
    }
  }

  /** Closes sockets of the old server that nobody asked for any more. */
  discardRest(): void {
    for (const { role, asked, fd, used } of this.#sockets) {
      if (used || role === "admin-local") continue;
      closeListening({ fd, address: boundAddress(fd), unlink: asked !== null });
    }
  }

  #take(role: OfferedSocket["role"], text: string): Taken | null {
    const free = this.#sockets.filter((socket) => socket.role === role && !socket.used);
    const socket = free.find(({ asked }) => asked === text) ?? free.find(({ bound }) => bound === text);
    if (socket === undefined) return null;
    socket.used = true;
    return socket;
  }
}

async function ask(client: AdminClient, path: string): Promise<unknown> {
  try {
    return await client.ask("POST", path, { pid: process.pid });
  } catch (error) {
    if (!(error instanceof ApiError) || error.code !== "LAMINA_PATH_UNKNOWN") throw error;
    throw refused("its version knows no replacement", "stop it, and start this one");
  }
}
