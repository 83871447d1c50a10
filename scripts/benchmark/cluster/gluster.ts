/**
 * GlusterFS, replica 3, from Debian's glusterfs-server, asked by fio through libgfapi. It refuses loopback addresses, so
 * its daemons and its client live in a network namespace with an address of its own. Nothing outside the folder and the
 * namespace is used, but for the logs of its bricks under /var/log/glusterfs.
 */
import { execFileSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { check, Program } from "../../../test/interop/support/process.js";
import { pause } from "../../../test/interop/support/server.js";
import type { FioCommand } from "../measure.js";
import { congestionControl } from "../provenance.js";
import { type Daemons, FioContestant } from "./contestant.js";

const VOLUME = "V";
const ADDRESS = "10.99.0.1";
const BRICKS = 3;
/** Option groups that come with the package; `group virt` is for images of machines. */
const GROUPS = "/var/lib/glusterd/groups";
const STEP_MS = 100;
const STEPS_MAX = 300;

export class Gluster extends FioContestant {
  readonly name = "GlusterFS replica 3";
  readonly about =
    "three bricks, `group virt`, asked through gfapi (depth 1) and gfapi_async; a write is acknowledged when three bricks have written it with O_DIRECT; no checksums";
  readonly #namespace = `lamina-bench-${process.pid}`;
  #folder = "";
  #hasNamespace = false;
  #glusterd: Program | null = null;
  #bricks: readonly number[] = [];

  constructor() {
    super();
    // Its bricks and its healer are daemons, which do not end with us by themselves.
    process.on("exit", () => {
      if (this.#hasNamespace) for (const pid of this.#pidsBelow("run")) kill(pid, "SIGKILL");
      this.#removeNamespace();
    });
  }

  protected async launch(folder: string): Promise<void> {
    this.#folder = folder;
    for (const name of ["work", "run"]) mkdirSync(join(folder, name), { recursive: true });
    if (existsSync(GROUPS)) cpSync(GROUPS, join(folder, "work", "groups"), { recursive: true });
    const bricks = Array.from({ length: BRICKS }, (_, i) => join(folder, `brick${i}`));
    for (const brick of bricks) mkdirSync(brick);
    await this.#makeNamespace();
    writeFileSync(join(folder, "glusterd.vol"), this.#settings());
    const files = ["-f", join(folder, "glusterd.vol"), "-l", join(folder, "glusterd.log")];
    const pidFile = join(folder, "glusterd.pid");
    this.#glusterd = new Program("ip", [...this.#inside(), "glusterd", "-N", ...files, "-p", pidFile]);
    for (let i = 0; !existsSync(this.#socket); i++) {
      if (i === STEPS_MAX || !this.#glusterd.isRunning)
        throw new Error(`glusterd does not serve: ${this.#glusterd.stderr}`);
      await pause(STEP_MS);
    }
    const places = bricks.map((brick) => `${ADDRESS}:${brick}`);
    await this.#gluster("volume", "create", VOLUME, "replica", String(BRICKS), ...places, "force");
    await this.#gluster("volume", "set", VOLUME, "group", "virt");
    await this.#gluster("volume", "set", VOLUME, "server.allow-insecure", "on");
    await this.#gluster("volume", "start", VOLUME);
    this.#bricks = this.#pidsBelow("run/vols");
    if (this.#bricks.length !== BRICKS) throw new Error(`${this.#bricks.length} of ${BRICKS} bricks run`);
  }

  protected daemons(): Daemons {
    return { bricks: this.#bricks };
  }

  protected engine(depth: number): readonly string[] {
    const engine = depth === 1 ? "gfapi" : "gfapi_async";
    return [`--ioengine=${engine}`, `--volume=${VOLUME}`, `--brick=${ADDRESS}`, "--filename=image"];
  }

  protected override command(): FioCommand {
    return { command: ["ip", ...this.#inside(), "fio"] };
  }

  async stop(): Promise<void> {
    const glusterd = this.#glusterd;
    // Ends bricks and self-heal daemon.
    if (glusterd?.isRunning === true)
      await this.#gluster("volume", "stop", VOLUME, "force").catch(() => undefined);
    for (const pid of this.#bricks) kill(pid, "SIGTERM");
    await glusterd?.end("SIGTERM");
    for (let i = 0; i < STEPS_MAX && this.#bricks.some(isAlive); i++) await pause(STEP_MS);
    this.#bricks = [];
    this.#glusterd = null;
    this.#removeNamespace();
  }

  /** What the files of process numbers say. */
  #pidsBelow(directory: string): number[] {
    return readdirSync(join(this.#folder, directory), { recursive: true, encoding: "utf8" })
      .filter((name) => name.endsWith(".pid"))
      .map((name) => Number(readFileSync(join(this.#folder, directory, name), "utf8")))
      .filter((pid) => pid > 0);
  }

  get #socket(): string {
    return join(this.#folder, "glusterd.sock");
  }

  #settings(): string {
    const options: Record<string, string> = {
      "working-directory": join(this.#folder, "work"),
      "run-directory": join(this.#folder, "run"),
      "glusterd-sockfile": this.#socket,
      "transport-type": "socket",
      "transport.socket.listen-port": "24007",
      "transport.socket.bind-address": ADDRESS,
      "ping-timeout": "0",
      "event-threads": "1",
    };
    const lines = Object.entries(options).map(([name, value]) => `    option ${name} ${value}\n`);
    return `volume management\n    type mgmt/glusterd\n${lines.join("")}end-volume\n`;
  }

  async #makeNamespace(): Promise<void> {
    const name = this.#namespace;
    await check("ip", ["netns", "add", name]);
    this.#hasNamespace = true;
    await check("ip", ["-n", name, "link", "add", "g0", "type", "veth", "peer", "name", "g1"]);
    await check("ip", ["-n", name, "addr", "add", `${ADDRESS}/24`, "dev", "g0"]);
    for (const device of ["lo", "g0", "g1"]) await check("ip", ["-n", name, "link", "set", device, "up"]);
    // A new namespace has the machine's, not that of the one it is made in.
    const tcp = `echo ${congestionControl()} >/proc/sys/net/ipv4/tcp_congestion_control`;
    await check("ip", [...this.#inside(), "sh", "-c", tcp]);
  }

  #removeNamespace(): void {
    if (!this.#hasNamespace) return;
    this.#hasNamespace = false;
    execFileSync("ip", ["netns", "del", this.#namespace], { stdio: "ignore" });
  }

  #inside(): readonly string[] {
    return ["netns", "exec", this.#namespace];
  }

  #gluster(...args: readonly string[]): Promise<string> {
    const log = `--log-file=${join(this.#folder, "cli.log")}`;
    const options = ["--mode=script", `--glusterd-sock=${this.#socket}`, log];
    return check("ip", [...this.#inside(), "gluster", ...options, ...args]);
  }
}

function isAlive(pid: number): boolean {
  return existsSync(`/proc/${pid}`);
}

function kill(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It has ended.
  }
}
