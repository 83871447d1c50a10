/**
 * A network that can be broken: each process of a cluster in a network namespace of its own, and a router in the
 * middle, in a further one. Nothing of the machine's own network is touched; what is cut is cut in the router, so that
 * packets vanish without a word to anybody, in one direction or both.
 */
import { execFileSync } from "node:child_process";
import { check, hasCommand, run } from "../../interop/support/process.js";

/** Where routing rules that drop packets begin; each has a number of its own, by which it is taken back. */
const RULES_FROM = 1000;
let networks = 0;

/** Why there can be no such network here; null when there can. */
export async function networkMissing(): Promise<string | null> {
  if (process.getuid?.() !== 0) return "needs root";
  if (!hasCommand("ip")) return "ip is not installed (./scripts/test installs it)";
  try {
    const network = await Network.make(1);
    await network.cut([0], [0]);
    network.dispose();
    return null;
  } catch (error) {
    return `network namespaces cannot be made here: ${String(error).split("\n").at(-2) ?? "no reason given"}`;
  }
}

export class Network {
  readonly hosts: number;
  readonly #name: string;
  readonly #rules: number[] = [];
  #nextRule = RULES_FROM;
  readonly #atExit = (): void => this.#remove();

  private constructor(hosts: number) {
    this.hosts = hosts;
    this.#name = `lamina-${process.pid}-${networks++}`;
  }

  static async make(hosts: number): Promise<Network> {
    const network = new Network(hosts);
    process.once("exit", network.#atExit);
    try {
      await network.#build();
    } catch (error) {
      network.dispose();
      throw error;
    }
    return network;
  }

  get #router(): string {
    return `${this.#name}-router`;
  }

  #space(host: number): string {
    return `${this.#name}-${host}`;
  }

  addressOf(host: number): string {
    return `10.77.${host + 1}.2`;
  }

  /** What a command line begins with to run there. The process keeps its id. */
  prefix(host: number): readonly string[] {
    // Not by "ip netns exec", which gives every process a mount namespace of its own.
    return ["nsenter", `--net=/run/netns/${this.#space(host)}`];
  }

  async #build(): Promise<void> {
    const router = this.#router;
    await check("ip", ["netns", "add", router]);
    for (let host = 0; host < this.hosts; host++) {
      const space = this.#space(host);
      await check("ip", ["netns", "add", space]);
      await this.#ip(router, `link add h${host} type veth peer name wire netns ${space}`);
      await this.#ip(router, `address add 10.77.${host + 1}.1/24 dev h${host}`, `link set h${host} up`);
      await this.#ip(
        space,
        `address add ${this.addressOf(host)}/24 dev wire`,
        "link set lo up",
        "link set wire up",
        `route add default via 10.77.${host + 1}.1`,
      );
    }
    const forward = "echo 1 > /proc/sys/net/ipv4/ip_forward";
    await check("ip", ["netns", "exec", router, "sh", "-c", forward]);
  }

  async #ip(space: string, ...commands: readonly string[]): Promise<void> {
    const { code, stderr } = await run("ip", ["-n", space, "-batch", "-"], {
      input: `${commands.join("\n")}\n`,
    });
    if (code !== 0) throw new Error(`ip ${commands.join("; ")}\nended with ${code}\n${stderr}`);
  }

  /** Nothing that one of `from` sends arrives at one of `to` any more. */
  async cut(from: readonly number[], to: readonly number[]): Promise<void> {
    const commands: string[] = [];
    for (const sender of from) {
      for (const receiver of to) {
        const rule = this.#nextRule++;
        this.#rules.push(rule);
        const addresses = `from ${this.addressOf(sender)} to ${this.addressOf(receiver)}`;
        commands.push(`rule add pref ${rule} ${addresses} blackhole`);
      }
    }
    await this.#ip(this.#router, ...commands);
  }

  async cutBothWays(some: readonly number[], others: readonly number[]): Promise<void> {
    await this.cut(some, others);
    await this.cut(others, some);
  }

  async heal(): Promise<void> {
    const rules = this.#rules.splice(0);
    if (rules.length > 0) await this.#ip(this.#router, ...rules.map((rule) => `rule del pref ${rule}`));
  }

  /** Of a host's interface, since it was made. */
  async receivedBytes(host: number): Promise<number> {
    const [first, ...others] = this.prefix(host);
    const text = await check(first!, [...others, "sh", "-c", "grep wire: /proc/net/dev"]);
    return Number(/wire:\s*(\d+)/.exec(text)?.[1]);
  }

  /** What runs in it has to have ended. */
  dispose(): void {
    process.removeListener("exit", this.#atExit);
    this.#remove();
  }

  #remove(): void {
    for (const space of [this.#router, ...Array.from({ length: this.hosts }, (_, i) => this.#space(i))]) {
      try {
        execFileSync("ip", ["netns", "del", space], { stdio: "ignore" });
      } catch {
        // It was never made.
      }
    }
  }
}
