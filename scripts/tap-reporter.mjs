// Reporter for tap: a line per file while it runs, failures in full at the end, and as the very last line
//   N passed, N failed, N skipped
// It counts named tests: every t.test() that has no t.test() inside. A file without any, and a failure that
// belongs to no named test (a crash, a time-out, a loose assertion), count as one of their own.
//
// tap pipes the raw stream through this Transform; what is pushed in _flush comes after everything else.
import { Transform } from "node:stream";
import { Parser } from "tap-parser";

/** Lines of one failure's details that are shown. */
const DETAIL_LINES_MAX = 120;

class Totals {
  passed = 0;
  failed = 0;
  skipped = 0;

  add(other) {
    this.passed += other.passed;
    this.failed += other.failed;
    this.skipped += other.skipped;
  }

  get count() {
    return this.passed + this.failed + this.skipped;
  }

  toString() {
    return `${this.passed} passed, ${this.failed} failed, ${this.skipped} skipped`;
  }
}

/** One level of the stream: the run, a file, or a test. */
class Suite {
  totals = new Totals();
  path;
  /** Details of assertions that failed here, outside any named test below. */
  #loose = [];
  /** The last suite that ended, until its closing test point arrives. */
  #ended = null;
  #report;

  constructor(parser, path, report) {
    this.path = path;
    this.#report = report;
    parser.on("child", (child) => {
      this.#ended = new Suite(child, [...path, child.name], report);
    });
    parser.on("assert", (result) => this.#point(result));
    parser.on("bailout", (reason) => this.#loose.push({ name: "bailed out", diag: { reason } }));
  }

  #point(result) {
    const suite = result.closingTestPoint ? this.#ended : null;
    this.#ended = null;
    if (suite !== null) {
      this.totals.add(suite.close(result));
      if (this.path.length === 0) this.#report.file(suite, result);
    } else if (result.skip || result.todo) {
      this.totals.skipped += 1;
      this.#report.skip([...this.path, result.name], reasonOf(result));
    } else if (!result.ok) {
      this.#loose.push(result);
    }
  }

  /** The suite's numbers, once its own test point is known. */
  close(result) {
    const named = this.totals.count;
    if (result.skip || result.todo) {
      this.totals.skipped += 1;
      this.#report.skip(this.path, reasonOf(result));
    } else if (this.#loose.length > 0 || (!result.ok && this.totals.failed === 0)) {
      this.totals.failed += 1;
      this.#report.failure(this.path, this.#loose.length > 0 ? this.#loose : [result]);
    } else if (named === 0) {
      this.totals.passed += 1;
    }
    return this.totals;
  }
}

function reasonOf(result) {
  const note = result.skip || result.todo;
  return typeof note === "string" && note !== "" ? note : "no reason given";
}

function seconds(time) {
  return time ? `, ${(time / 1000).toFixed(1)} s` : "";
}

/** A value of a diagnostic as lines; tap has already made strings of what is not plain. */
function lines(value, indent) {
  const text = typeof value === "string" ? value : JSON.stringify(value, null, 2);
  return (text ?? String(value))
    .trimEnd()
    .split("\n")
    .map((line) => indent + line);
}

function isPlace(value) {
  return typeof value === "object" && value !== null && "fileName" in value && "lineNumber" in value;
}

function place({ fileName, lineNumber, columnNumber }) {
  return `${fileName}:${lineNumber}:${columnNumber ?? 0}`;
}

function details(diag) {
  if (diag === null || typeof diag !== "object") return [];
  const out = [];
  for (const [key, value] of Object.entries(diag)) {
    // The source excerpt repeats what `at` says.
    if (key === "source" || value === undefined) continue;
    const body = lines(isPlace(value) ? place(value) : value, "        ");
    if (body.length === 1) out.push(`      ${key}: ${body[0].trim()}`);
    else out.push(`      ${key}:`, ...body);
  }
  if (out.length <= DETAIL_LINES_MAX) return out;
  return [...out.slice(0, DETAIL_LINES_MAX), `      … ${out.length - DETAIL_LINES_MAX} more lines`];
}

export default class Reporter extends Transform {
  #parser = new Parser();
  #run = new Suite(this.#parser, [], this);
  #failures = [];
  #skips = [];

  _transform(chunk, _encoding, done) {
    this.#parser.write(chunk);
    done();
  }

  _flush(done) {
    this.#parser.once("complete", () => {
      this.#summary();
      done();
    });
    this.#parser.end();
  }

  file(suite, result) {
    const { totals } = suite;
    const state = totals.failed > 0 ? "FAIL" : totals.passed > 0 ? "ok  " : "skip";
    const extra =
      (totals.failed > 0 ? `, ${totals.failed} failed` : "") +
      (totals.skipped > 0 ? `, ${totals.skipped} skipped` : "");
    this.push(`${state} ${result.name} (${totals.passed} passed${extra}${seconds(result.time)})\n`);
  }

  skip(path, reason) {
    this.#skips.push(`  ${path.join(" › ")}: ${reason}`);
  }

  failure(path, results) {
    this.#failures.push({ path, results });
  }

  #summary() {
    const { totals } = this.#run;
    // The script that calls tap tells what the linters said: a broken rule is a failed test.
    const lint = process.env["LAMINA_LINT"];
    if (lint === "passed") totals.passed += 1;
    if (lint === "failed") {
      totals.failed += 1;
      this.failure(["lint"], [{ name: "the linters' findings are above", diag: null }]);
    }
    if (this.#skips.length > 0) this.push(`\nSkipped:\n${this.#skips.join("\n")}\n`);
    for (const { path, results } of this.#failures) {
      this.push(`\nFAILED ${path.join(" › ")}\n`);
      for (const { name, diag } of results) {
        this.push(`    ${name}\n`);
        for (const line of details(diag)) this.push(`${line}\n`);
      }
    }
    this.push(`\n${totals}\n`);
  }
}
