import t from "tap";
import { Prng } from "./prng.js";
import { type HistoryEvent, possible } from "./support/brute-force.js";
import { judge, rightHistory, wrongHistory } from "./support/register-histories.js";

const HISTORIES = Number(process.env["HISTORIES"] ?? 3000);

function compare(
  name: string,
  shape: { events: number; zeros: boolean; crashes: boolean },
  exact: boolean,
): void {
  void t.test(name, (t) => {
    let wrong = 0;
    let missed = 0;
    for (let seed = 1; seed <= HISTORIES; seed++) {
      const random = Prng.ofSeed(seed);
      const right = rightHistory(random, shape);
      if (!possible(right)) return void t.fail(`the search refuses a right history: seed ${seed}`);
      const alarm = judge(right);
      if (alarm !== null) {
        t.comment(right.map((event) => JSON.stringify(event)).join("\n"));
        t.fail(`false alarm, seed ${seed}: ${alarm.message}`);
        return void t.end();
      }
      const changed = wrongHistory(random, right);
      const verdict = judge(changed) === null;
      const truth = possible(changed);
      if (!truth) wrong++;
      if (verdict === truth) continue;
      if (verdict) missed++;
      if (!verdict || exact) {
        t.comment(changed.map((event) => JSON.stringify(event)).join("\n"));
        t.fail(`seed ${seed}: the checker says ${verdict}, the search says ${truth}`);
        return void t.end();
      }
    }
    t.ok(wrong > HISTORIES / 20, `${wrong} of ${HISTORIES} changed histories are impossible`);
    t.ok(missed <= wrong / 50, `the checker misses ${missed} of them`);
    t.end();
  });
}

compare("one life, unique values: the checker is exact", { events: 14, zeros: false, crashes: false }, true);
compare("one life, with zeros: no false alarm", { events: 14, zeros: true, crashes: false }, false);
compare(
  "kills and power losses, unique values: the checker is exact",
  { events: 16, zeros: false, crashes: true },
  true,
);
compare("kills, power losses and zeros: no false alarm", { events: 16, zeros: true, crashes: true }, false);

const write = (op: number, fua = false): HistoryEvent => ({ kind: "write", op, zeros: false, fua });
const written = (op: number): HistoryEvent => ({ kind: "written", op });
const see = (op: number, value: number): HistoryEvent[] => [
  { kind: "read", op },
  { kind: "seen", op, value },
];
const flush = (op: number): HistoryEvent[] => [
  { kind: "flush", op },
  { kind: "flushed", op },
];
const kill: HistoryEvent = { kind: "kill" };
const power: HistoryEvent = { kind: "power" };

const WRONG: Record<string, HistoryEvent[]> = {
  "a lost write": [write(1), written(1), ...see(2, 0)],
  "a write lost by a kill": [write(1), written(1), kill, ...see(2, 0)],
  "a stale read": [write(1), written(1), write(2), written(2), ...see(3, 1)],
  "a flip-flop of an unanswered write": [write(1), kill, ...see(2, 1), ...see(3, 0)],
  "a late appearance of an unanswered write": [write(1), kill, ...see(2, 0), ...see(3, 1)],
  "a flushed write lost by a power loss": [write(1), written(1), ...flush(2), power, ...see(3, 0)],
  "a FUA write lost by a power loss": [write(1, true), written(1), power, ...see(3, 0)],
  "a flush that forgets an earlier life": [write(1), written(1), kill, ...flush(2), power, ...see(3, 0)],
  "an older value than the flushed one": [
    write(1),
    written(1),
    write(2),
    written(2),
    ...flush(3),
    power,
    ...see(4, 1),
  ],
  "a value that changes after the first read": [write(1), written(1), power, ...see(2, 0), ...see(3, 1)],
  "a settled value that the next power loss takes": [
    write(1),
    written(1),
    power,
    ...see(2, 1),
    power,
    ...see(3, 0),
  ],
};

for (const [name, events] of Object.entries(WRONG)) {
  void t.test(`refused: ${name}`, (t) => {
    t.notOk(possible(events), "the search refuses it");
    t.ok(judge(events), "the checker refuses it");
    t.end();
  });
}

const RIGHT: Record<string, HistoryEvent[]> = {
  "an unflushed write lost by a power loss": [write(1), written(1), power, ...see(2, 0)],
  "an unanswered write that survived": [write(1), power, ...see(2, 1), ...see(3, 1)],
  "an older version after a power loss": [write(1), written(1), write(2), written(2), power, ...see(3, 1)],
};

for (const [name, events] of Object.entries(RIGHT)) {
  void t.test(`accepted: ${name}`, (t) => {
    t.ok(possible(events), "the search accepts it");
    t.equal(judge(events), null, "the checker accepts it");
    t.end();
  });
}
