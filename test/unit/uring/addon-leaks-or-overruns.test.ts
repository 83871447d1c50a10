import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import t from "tap";
import { KINDS, ringRefusal } from "./support/engines.js";
import { Program } from "./support/run.js";

/**
 * The addon built with AddressSanitizer, in a Node that was not: the sanitizer's library is loaded first.
 * Node and V8 have leaks of their own, so only reports that name the addon count.
 */
const ROOT = fileURLToPath(new URL("../../../", import.meta.url));
const ADDON = join(ROOT, "addon/build/address/Release/lamina_uring.node");
const OURS = /lamina_uring| \.\.\/src\/\w+\.c:\d+/;
/** V8's own heap, and frames through which JavaScript is entered: what they allocate is not the addon's. */
const NOT_OURS = /v8::internal::|Builtins_|napi_make_callback|InternalMakeCallback/;

/** Whether the addon allocated it: one of its functions is nearer to the allocation than V8. */
function leakedByAddon(report: string): boolean {
  const frames = report.split("\n");
  const ours = frames.findIndex((frame) => OURS.test(frame));
  const others = frames.findIndex((frame) => NOT_OURS.test(frame));
  return ours >= 0 && (others < 0 || ours < others);
}

const library = execFileSync("cc", ["-print-file-name=libasan.so"]).toString().trim();
const skip = existsSync(library) ? ringRefusal() : "needs libasan (libgcc's)";
const options = typeof skip === "string" ? { skip } : {};

t.test("everything once, exit and termination, under AddressSanitizer", options, async (t) => {
  execFileSync(process.execPath, [join(ROOT, "scripts/build-addon.mjs"), "--sanitize=address"]);
  const env = {
    LD_PRELOAD: library,
    LAMINA_ADDON: ADDON,
    ASAN_OPTIONS: "detect_leaks=1:abort_on_error=0:exitcode=99:log_path=stderr",
    LSAN_OPTIONS: "exitcode=0:report_objects=1",
  };
  for (const kind of KINDS) {
    for (const [name, code] of [
      ["exercise", 0],
      ["exit", 7],
      ["terminate", 0],
    ] as const) {
      const program = new Program(name, kind, [join(t.testdir(), `${kind}-${name}`)], env);
      const ended = await program.ended;
      t.equal(ended.code, code, `${name} (${kind}) ends as it should`);
      t.notMatch(ended.stderr, /ERROR: AddressSanitizer/, `${name} (${kind}): no access outside of memory`);
      const leaks = ended.stderr.split(/\n(?=(?:Direct|Indirect) leak of)/).slice(1);
      const ours = leaks.filter(leakedByAddon);
      t.same(ours, [], `${name} (${kind}): no leak of ${leaks.length} is ours`);
    }
  }
});

t.test(
  "the sanitizer is at work: it is loaded, and the addon under test is built with it",
  options,
  async (t) => {
    const symbols = execFileSync("nm", ["-D", "--undefined-only", ADDON]).toString();
    t.match(symbols, /__asan_report_store/);
  },
);
