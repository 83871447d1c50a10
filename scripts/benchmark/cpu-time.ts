/** CPU time of a server: all threads of the process and of its children, as the kernel accounts it. */
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

/** Most memory that the process has had, in bytes. */
export function peakMemory(pid: number): number {
  const match = /^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"));
  return match === null ? 0 : Number(match[1]) * 1024;
}
