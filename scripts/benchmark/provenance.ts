/** What a result was measured with and on. */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { cpus, release, totalmem } from "node:os";

/** The checkout, whether built or not. */
export function root(): string {
  return new URL("../../", import.meta.url).pathname.replace(/dist\/$/, "");
}

export function versionOf(command: string, args: readonly string[]): string {
  try {
    const text = execFileSync(command, args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
    return /\d+\.\d+(\.\d+)?/.exec(text)?.[0] ?? "?";
  } catch {
    return "?";
  }
}

export function commit(): string {
  try {
    return execFileSync("git", ["describe", "--always", "--dirty"], { cwd: root(), encoding: "utf8" }).trim();
  } catch {
    return "unknown";
  }
}

export function machine(): Record<string, string | number> {
  const model = cpus()[0]?.model ?? "unknown CPU";
  return {
    CPU: `${cpus().length} × ${model}`,
    memory: `${Math.round(totalmem() / 2 ** 30)} GiB`,
    Linux: release(),
    TCP: `${congestionControl()} (${process.env["LAMINA_BENCH_NETWORK"] === "own" ? "a network namespace of its own" : "the machine's network"})`,
  };
}

/** Congestion control of new TCP connections in this network namespace. */
export function congestionControl(): string {
  return readFileSync("/proc/sys/net/ipv4/tcp_congestion_control", "utf8").trim();
}
