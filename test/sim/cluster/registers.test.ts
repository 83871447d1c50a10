/** The checker of the simulated cluster: what it must take for wrong, and what only looks wrong. */
import t from "tap";
import { Violation } from "../violation.js";
import { ClusterChecks } from "./checks.js";
import { VolumeRegisters } from "./registers.js";

const FIRST = 5;
const VOLUME = 7;

function written(registers: VolumeRegisters, isStable = false): number {
  const id = registers.numberOf(FIRST, 2, false);
  registers.beginWrite(FIRST, 2, id, isStable)();
  return id;
}

function shows(registers: VolumeRegisters, id: number): () => void {
  return () => registers.beginRead(FIRST, 1)(0, new Set([id]));
}

/** Violations are remembered for the run that raised them; there is none here. */
t.afterEach(() => {
  Violation.raised = null;
});

t.test("what was acknowledged is not missed, until power is lost; what was flushed, never", async (t) => {
  const registers = new VolumeRegisters(false);
  const older = written(registers);
  const flushed = registers.beginFlush();
  const newer = written(registers);
  t.throws(shows(registers, older), /I3: register 5 of volume 0 showed/);
  t.throws(shows(registers, 0), /I3/);
  t.doesNotThrow(shows(registers, newer));
  flushed();
  registers.powerLost();
  t.doesNotThrow(shows(registers, older), "the flush was asked for before the newer one");
  t.throws(shows(registers, 0), /I3/);
});

t.test("what is answered after a loss of power is not made stable by a later flush", async (t) => {
  const registers = new VolumeRegisters(false);
  const id = registers.numberOf(FIRST, 1, false);
  const answered = registers.beginWrite(FIRST, 1, id, false);
  registers.powerLost();
  answered();
  registers.beginFlush()();
  t.doesNotThrow(shows(registers, 0));
});

t.test("two reads agree: what was shown is not missed by the next one", async (t) => {
  const registers = new VolumeRegisters(true);
  const id = registers.numberOf(FIRST, 1, false);
  t.doesNotThrow(shows(registers, 0));
  t.doesNotThrow(shows(registers, id));
  t.throws(shows(registers, 0), /I3/);
});

t.test("a number of another place, of another volume or of no write is not taken for content", async (t) => {
  const registers = new VolumeRegisters(true, 0);
  const other = new VolumeRegisters(true, 1);
  const elsewhere = registers.numberOf(FIRST + 10, 1, false);
  t.throws(shows(registers, elsewhere), /which nobody wrote/);
  t.throws(shows(registers, other.numberOf(FIRST, 1, false)), /I18/);
  t.throws(shows(registers, 4000), /which nobody wrote/);
});

t.test("hearing late that one's record was chosen is not serving; answering then is", async (t) => {
  const checks = new ClusterChecks(3);
  checks.servingBegan(VOLUME, 5);
  checks.servingBegan(VOLUME, 4);
  t.doesNotThrow(() => checks.answered(VOLUME, 5));
  t.throws(() => checks.answered(VOLUME, 4), /FENCE/);
});
