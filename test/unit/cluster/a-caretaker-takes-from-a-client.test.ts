import t from "tap";
import { OneEpoch } from "../../../lib/cluster/care/one-epoch.js";
import type { Ballot } from "../../../lib/replica/api.js";
import type { VolumeRegister } from "../../../lib/replica/owner/api.js";
import type { PromiseOutcome } from "../../../lib/replica/register.js";

const NOTHING = { waitingFor: [], cancel: () => undefined };

/** What an activation asks for through it, what it hears, and when it is to leave. */
class Bench {
  isAlone = true;
  readonly asked: number[] = [];
  readonly heard: string[] = [];
  readonly left: number[] = [];
  answer: (outcome: PromiseOutcome) => void = () => undefined;
  readonly #register: VolumeRegister = {
    promise: (_volume, { epoch }, done) => {
      this.asked.push(epoch);
      this.answer = done;
      return NOTHING;
    },
    accept: (_volume, _record, done) => {
      done({ kind: "chosen" });
      return NOTHING;
    },
  };
  readonly once = new OneEpoch(
    this.#register,
    () => this.isAlone,
    (epoch) => this.left.push(epoch),
  );

  promise(epoch: number): void {
    const ballot: Ballot = { epoch, owner: 3 };
    this.once.promise(7, ballot, ({ kind }) => this.heard.push(kind));
  }

  refuse(epoch: number): void {
    this.answer({ kind: "refused", promised: { epoch, owner: 4 } });
  }
}

t.test("who is alone asks for one epoch, and leaves when that is refused", (t) => {
  const b = new Bench();
  b.promise(5);
  b.refuse(8);
  t.same(b.left, [8]);
  t.same(b.heard, [], "the activation does not hear of it, and tries no other");

  const member = new Bench();
  member.promise(5);
  member.answer({ kind: "promised", highest: null });
  t.same(member.heard, ["promised"]);
  member.promise(10);
  t.same(member.asked, [5], "nor when a member, or its record, was refused");
  t.same(member.left, [9]);
  t.end();
});

t.test("one whom a client has joined goes on as for any client", (t) => {
  const b = new Bench();
  b.promise(5);
  b.isAlone = false;
  b.refuse(8);
  b.promise(9);
  t.same(b.heard, ["refused"]);
  t.same(b.asked, [5, 9]);
  t.same(b.left, []);
  t.end();
});

t.test("records are accepted as ever", (t) => {
  const b = new Bench();
  const accepted = { ballot: { epoch: 5, owner: 3 }, generation: 1, bytes: new Uint8Array(1) };
  b.once.accept(7, accepted, ({ kind }) => b.heard.push(kind));
  t.same(b.heard, ["chosen"]);
  t.end();
});
