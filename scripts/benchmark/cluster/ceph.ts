/**
 * Ceph RBD, size 3, from Debian's packages, asked by fio through librbd: one monitor, one manager, three BlueStore OSDs on
 * files, all with a configuration and directories of their own.
 */
import { randomUUID } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { check, Program } from "../../../test/interop/support/process.js";
import { freePort, pause } from "../../../test/interop/support/server.js";
import type { FioCommand } from "../measure.js";
import { type Daemons, FioContestant } from "./contestant.js";

const OSDS = 3;
const POOL = "rbd";
const IMAGE = "v";
const PLACEMENT_GROUPS = 32;
/** Beside the image: BlueStore's log and database. */
const SPARE_BYTES = 2 ** 30;
const STEP_MS = 250;
const STEPS_MAX = 480;
const COMMAND_SECONDS = 60;

interface Status {
  readonly osdmap: { readonly num_up_osds: number };
  readonly pgmap: {
    readonly num_pgs: number;
    readonly pgs_by_state?: readonly { readonly state_name: string; readonly count: number }[];
  };
}

export class Ceph extends FioContestant {
  readonly name = "Ceph RBD size 3";
  readonly about =
    "one monitor, one manager, three BlueStore OSDs on files, asked through librbd without its cache; a write is acknowledged when three logs have committed it; messages and data with crc32c";
  #folder = "";
  #monitor: Program | null = null;
  #manager: Program | null = null;
  readonly #osds: Program[] = [];

  protected async launch(folder: string, sizeBytes: number): Promise<void> {
    this.#folder = folder;
    for (const name of ["mon", "mgr", "run", "crash", "osd0", "osd1", "osd2"])
      mkdirSync(join(folder, name), { recursive: true });
    const id = randomUUID();
    const monitor = `v2:127.0.0.1:${await freePort()}/0`;
    writeFileSync(this.#configuration, this.#settings(id, monitor, sizeBytes));
    const map = join(folder, "monmap");
    await check("monmaptool", ["--create", "--fsid", id, "--addv", "a", `[${monitor}]`, map]);
    await check("ceph-mon", ["--mkfs", "-i", "a", "--monmap", map, ...this.#common]);
    this.#monitor = new Program("ceph-mon", ["-f", "-i", "a", ...this.#common]);
    this.#manager = new Program("ceph-mgr", ["-f", "-i", "x", ...this.#common]);
    for (let i = 0; i < OSDS; i++) await this.#addOsd(i);
    await this.#until((status) => status.osdmap.num_up_osds === OSDS);
    await this.#ceph("osd", "pool", "create", POOL, String(PLACEMENT_GROUPS));
    await this.#ceph("osd", "pool", "application", "enable", POOL, "rbd");
    await this.#until(({ pgmap }) => {
      const clean = pgmap.pgs_by_state?.find(({ state_name }) => state_name === "active+clean");
      return pgmap.num_pgs >= PLACEMENT_GROUPS && clean?.count === pgmap.num_pgs;
    });
    const image = ["--pool", POOL, "--size", `${sizeBytes >> 20}M`, "--image-feature", "layering"];
    await this.#limited(["rbd", ...this.#common, "create", IMAGE, ...image]);
  }

  async #addOsd(i: number): Promise<void> {
    const id = randomUUID();
    await this.#ceph("osd", "new", id, String(i));
    await check("ceph-osd", ["-i", String(i), "--mkfs", "--osd-uuid", id, ...this.#common]);
    this.#osds.push(new Program("ceph-osd", ["-f", "-i", String(i), ...this.#common]));
  }

  protected daemons(): Daemons {
    return {
      OSDs: this.#osds.map(({ pid }) => pid),
      "monitor, manager": [this.#monitor!.pid, this.#manager!.pid],
    };
  }

  protected engine(): readonly string[] {
    return ["--ioengine=rbd", `--pool=${POOL}`, `--rbdname=${IMAGE}`, "--clientname=admin"];
  }

  protected override command(): FioCommand {
    return { env: { CEPH_CONF: this.#configuration } };
  }

  async stop(): Promise<void> {
    // OSDs first: they tell the monitor that they go.
    const all = [...this.#osds.splice(0), this.#manager, this.#monitor];
    this.#manager = null;
    this.#monitor = null;
    for (const program of all) await program?.end("SIGTERM");
  }

  get #configuration(): string {
    return join(this.#folder, "ceph.conf");
  }

  get #common(): readonly string[] {
    return ["-c", this.#configuration];
  }

  #settings(id: string, monitor: string, sizeBytes: number): string {
    const folder = this.#folder;
    const options: Record<string, string | number> = {
      fsid: id,
      "mon host": monitor,
      "public addr": "127.0.0.1",
      "cluster addr": "127.0.0.1",
      "auth cluster required": "none",
      "auth service required": "none",
      "auth client required": "none",
      "run dir": join(folder, "run"),
      "crash dir": join(folder, "crash"),
      "admin socket": join(folder, "run", "$type.$id.asok"),
      "log file": join(folder, "run", "$type.$id.log"),
      "mon data": join(folder, "mon"),
      "mgr data": join(folder, "mgr"),
      "osd data": join(folder, "osd$id"),
      "osd crush chooseleaf type": 0,
      "osd pool default size": OSDS,
      "osd pool default min size": 2,
      "osd pool default pg autoscale mode": "off",
      "osd memory target": 2 ** 30,
      "bluestore block size": sizeBytes + SPARE_BYTES,
      "bluestore debug enforce settings": "ssd",
      "rbd cache": "false",
    };
    const lines = Object.entries(options).map(([name, value]) => `${name} = ${value}\n`);
    return `[global]\n${lines.join("")}`;
  }

  async #until(reached: (status: Status) => boolean): Promise<void> {
    for (let i = 0; i < STEPS_MAX; i++) {
      if (reached(JSON.parse(await this.#ceph("status", "--format", "json")) as Status)) return;
      await pause(STEP_MS);
    }
    throw new Error(`Ceph does not come up: ${await this.#ceph("status")}`);
  }

  #ceph(...args: readonly string[]): Promise<string> {
    return this.#limited(["ceph", ...this.#common, ...args]);
  }

  #limited(command: readonly string[]): Promise<string> {
    return check("timeout", [String(COMMAND_SECONDS), ...command]);
  }
}
