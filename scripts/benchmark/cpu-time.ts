/** What a server uses: CPU time, memory and device writes of the process and its children, as the kernel accounts them. */
import { readdirSync, readFileSync } from "node:fs";

/** USER_HZ is 100 on every Linux that Node runs on. */
const TICK_US = 10_000;

interface Stat {
  readonly pid: number;
  readonly parent: number;
  readonly userTicks: number;
  readonly systemTicks: number;
  readonly childUserTicks: number;
  readonly childSystemTicks: number;
}

export interface CpuTime {
  readonly userUs: number;
  readonly systemUs: number;
}

function statOf(pid: number): Stat | null {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "utf8");
    // The name may hold spaces and parentheses.
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    const number = (index: number): number => Number(fields[index - 3]);
    return {
      pid,
      parent: number(4),
      userTicks: number(14),
      systemTicks: number(15),
      childUserTicks: number(16),
      childSystemTicks: number(17),
    };
  } catch {
    return null;
  }
}

function allProcesses(): Stat[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map((name) => statOf(Number(name)))
    .filter((stat) => stat !== null);
}

function family(root: number): Stat[] {
  const all = allProcesses();
  const members = all.filter((stat) => stat.pid === root);
  for (let i = 0; i < members.length; i++) {
    members.push(...all.filter((stat) => stat.parent === members[i]!.pid));
  }
  return members;
}

/** Time that the process and its descendants, dead ones included, have used so far. */
export function cpuTime(pid: number): CpuTime {
  let user = 0;
  let system = 0;
  for (const stat of family(pid)) {
    user += stat.userTicks + stat.childUserTicks;
    system += stat.systemTicks + stat.childSystemTicks;
  }
  return { userUs: user * TICK_US, systemUs: system * TICK_US };
}

/** Time in microseconds that programs which this process has started, and which have ended, have used with all their threads. */
export function endedCpuTime(): number {
  const { childUserTicks, childSystemTicks } = statOf(process.pid)!;
  return (childUserTicks + childSystemTicks) * TICK_US;
}

/** Memory that the process and its descendants have just now, in bytes. */
export function residentBytes(pid: number): number {
  return sumOverFamily(pid, "status", /^VmRSS:\s+(\d+) kB/m) * 1024;
}

/**
 * Bytes that the process and its living descendants have sent towards a device: direct writes when they are
 * submitted, page-cache writes when they dirty a page. Writes of the file system's own journal are not in it.
 */
export function writtenBytes(pid: number): number {
  return sumOverFamily(pid, "io", /^write_bytes: (\d+)/m);
}

function sumOverFamily(root: number, file: string, pattern: RegExp): number {
  let sum = 0;
  for (const { pid } of family(root)) {
    try {
      sum += Number(pattern.exec(readFileSync(`/proc/${pid}/${file}`, "utf8"))?.[1] ?? 0);
    } catch {
      // It has ended in the meantime.
    }
  }
  return sum;
}
