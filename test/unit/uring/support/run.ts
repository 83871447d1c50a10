/**
 * Starts support/program.ts as a process or a thread. The sources it needs are translated once, without
 * checking types: a loader in each of dozens of processes would take most of the test's time.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import typescript from "typescript";
import type { EngineKind, PoolShare } from "../../../../lib/uring/api.js";

const ROOT = fileURLToPath(new URL("../../../../", import.meta.url));
const SOURCES = ["lib/core", "lib/uring", "test/unit/uring/support"];
const PROGRAM = "test/unit/uring/support/program.js";

let translated: string | null = null;

/** Path of the runnable program; below the project, so that it finds the addon and package.json as ever. */
function program(): string {
  translated ??= translate();
  return join(translated, PROGRAM);
}

function translate(): string {
  mkdirSync(join(ROOT, ".tap"), { recursive: true });
  const target = mkdtempSync(join(ROOT, ".tap", "uring-"));
  process.once("exit", () => rmSync(target, { recursive: true, force: true }));
  for (const directory of SOURCES) {
    for (const name of readdirSync(join(ROOT, directory))) {
      if (name.endsWith(".ts")) translateFile(target, join(directory, name));
    }
  }
  return target;
}

function translateFile(target: string, path: string): void {
  const { outputText } = typescript.transpileModule(readFileSync(join(ROOT, path), "utf8"), {
    compilerOptions: {
      target: typescript.ScriptTarget.ES2023,
      module: typescript.ModuleKind.ESNext,
      verbatimModuleSyntax: true,
    },
  });
  const out = join(target, path.replace(/\.ts$/, ".js"));
  mkdirSync(dirname(out), { recursive: true });
  writeFileSync(out, outputText);
}

export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stderr: string;
}

export class Program {
  readonly child: ChildProcess;
  readonly lines: string[] = [];
  readonly ended: Promise<Ended>;
  #wake: () => void = () => {};
  #over = false;

  constructor(name: string, kind: EngineKind | "auto", args: readonly string[], env: NodeJS.ProcessEnv = {}) {
    this.child = spawn(process.execPath, [program(), name, kind, ...args], {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, NODE_OPTIONS: "", ...env },
    });
    let stderr = "";
    this.child.stderr!.on("data", (chunk: Buffer) => {
      stderr += chunk.toString();
    });
    createInterface({ input: this.child.stdout! }).on("line", (line) => {
      this.lines.push(line);
      this.#wake();
    });
    this.ended = once(this.child, "close").then(([code, signal]) => {
      this.#over = true;
      this.#wake();
      return { code: code as number | null, signal: signal as NodeJS.Signals | null, stderr };
    });
  }

  /** The first line that begins with `word`; rejects when the program ends without one. */
  async line(word: string): Promise<string> {
    for (;;) {
      const found = this.lines.find((line) => line.startsWith(word));
      if (found !== undefined) return found;
      if (this.#over) throw new Error(`ended without '${word}': ${(await this.ended).stderr}`);
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  kill(): Promise<Ended> {
    this.child.kill("SIGKILL");
    return this.ended;
  }
}

export function startWorker(
  name: string,
  kind: EngineKind,
  args: readonly string[],
  share?: PoolShare,
): Worker {
  return new Worker(program(), {
    execArgv: [],
    workerData: { name, kind, args, ...(share === undefined ? {} : { share }) },
  });
}
