/**
 * Guests that attach volumes with lamina-attach, and a telephone from the guest to the test: the guest says a
 * word over TCP ("kill", "start"), the test does it and answers when it is done.
 */
import { spawnSync } from "node:child_process";
import { createWriteStream, existsSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import type { Test } from "tap";
import { check } from "../../interop/support/process.js";
import type { Requirements } from "../../interop/support/requirements.js";
import type { ServerOptions } from "../../interop/support/server.js";
import { GUEST_NEEDS, type Guest } from "./guest.js";

const ROOT = new URL("../../../", import.meta.url).pathname.replace(/dist\/$/, "");

export const ATTACH_NEEDS: Requirements = {
  ...GUEST_NEEDS,
  commands: [...(GUEST_NEEDS.commands ?? []), "cc", "make"],
};

/** Restarts are many here, and Redis is not what they are about. */
export const NO_REDIS: ServerOptions = { args: ["--redis", "none"] };

const built = new Map<string, string>();

/** Builds the program when it is stale and returns its path. */
export function attachProgram(kind: "static" | "sanitize" = "static"): string {
  const known = built.get(kind);
  if (known !== undefined) return known;
  const args = [join(ROOT, "scripts", "build-attach.mjs"), ...(kind === "sanitize" ? ["--sanitize"] : [])];
  const result = spawnSync(process.execPath, args, { encoding: "utf8" });
  const path = result.stdout.trim().split("\n").at(-1) ?? "";
  if (result.status !== 0 || !existsSync(path))
    throw new Error(`lamina-attach was not built: ${result.stderr}`);
  built.set(kind, path);
  return path;
}

/** Programs of this machine with their libraries, as `files` of a guest. */
export async function withLibraries(...programs: string[]): Promise<Record<string, string>> {
  const files: Record<string, string> = {};
  for (const program of programs) {
    const path = (await check("sh", ["-c", `readlink -f "$(command -v ${program})"`])).trim();
    // The image's /bin, /sbin and /lib are links into /usr.
    files[`usr/sbin/${program}`] = path;
    for (const library of (await check("ldd", [path])).match(/\/\S+/g) ?? []) {
      files[`usr/${library.replace(/^\/(usr\/)?/, "")}`] = library;
    }
  }
  return files;
}

/** With LAMINA_TEST_CONSOLE=FILE the guest's console can be watched there while it runs. */
export function keepConsole(guest: Guest): void {
  const path = process.env["LAMINA_TEST_CONSOLE"];
  if (path !== undefined) guest.program.child.stdout?.pipe(createWriteStream(path));
}

/** Answers words of the guest; `done` ends each answer. An action that fails answers with its error. */
export class Telephone {
  readonly #server: Server;
  readonly #actions: Readonly<Record<string, () => Promise<void>>>;
  readonly heard: string[] = [];

  private constructor(actions: Readonly<Record<string, () => Promise<void>>>) {
    this.#actions = actions;
    // The guest closes its half once it has asked.
    this.#server = createServer({ allowHalfOpen: true }, (socket) => this.#listen(socket));
  }

  static async open(t: Test, actions: Readonly<Record<string, () => Promise<void>>>): Promise<Telephone> {
    const telephone = new Telephone(actions);
    await new Promise<void>((resolve) => telephone.#server.listen(0, "127.0.0.1", resolve));
    t.teardown(() => telephone.#server.close());
    return telephone;
  }

  get port(): number {
    const address = this.#server.address();
    return typeof address === "object" && address !== null ? address.port : 0;
  }

  #listen(socket: Socket): void {
    socket.setEncoding("utf8");
    socket.on("error", () => {});
    socket.once("data", (text: string) => {
      const word = text.trim();
      this.heard.push(word);
      const action = this.#actions[word] ?? (() => Promise.reject(new Error(`nobody knows '${word}'`)));
      action().then(
        () => socket.end("done\n"),
        (error: unknown) => socket.end(`${String(error)}\n`),
      );
    });
  }
}

/** Shell functions of the guest: `ask WORD` calls the test and fails unless the answer is "done". */
export function shellTools(telephone: Telephone): string {
  return `
# A job that fails leaves nothing that waits: powering off would wait for it too.
give_up() {
  code=$?
  [ $code != 0 ] || return 0
  lamina-attach list
  for device in $(lamina-attach list | awk '/^.dev/ { print $1 }'); do lamina-attach detach --force $device; done
}
trap give_up EXIT
ask() { [ "$(echo "$1" | nc 10.0.2.2 ${telephone.port})" = done ]; }
# load DIRECTORY NAME: writes files, syncs each, and notes its sum, until /stop-NAME appears.
load() {
  i=0
  while [ ! -e /stop-$2 ]; do
    i=$((i + 1))
    dd if=/dev/urandom of=/tmp/$2-piece bs=16k count=$((i % 13 + 1)) 2>/dev/null
    dd if=/tmp/$2-piece of=$1/$((i % 60)) conv=fsync bs=64k 2>/dev/null || { echo "GUEST $2 cannot write"; return 1; }
    echo "$(sha256sum </tmp/$2-piece | cut -d' ' -f1) $((i % 60))" >>/tmp/$2-sums
  done
  echo "GUEST $2 wrote $i files"
}
# verify DIRECTORY NAME: each file has the sum of its last write.
verify() {
  awk '{ last[$2] = $1 } END { for (name in last) print last[name] "  " name }' /tmp/$2-sums >/tmp/$2-expected
  [ -s /tmp/$2-expected ]
  (cd $1 && sha256sum -c /tmp/$2-expected >/tmp/$2-checked) || { grep -v OK /tmp/$2-checked; return 1; }
  echo "GUEST $2 is byte-equal"
}
# until N COMMAND: tries it each tenth of a second, N times at most.
until_true() { tries=$1; shift; while ! "$@"; do tries=$((tries - 1)); [ $tries -gt 0 ]; usleep 100000; done; }
links() { lamina-attach list | awk -v device=$1 '$1 == device { print $2 }'; }
is_whole() { [ "$(links $1)" = "2/2" ]; }
`;
}
