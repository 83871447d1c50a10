/**
 * Questions to several nodes, of which some may hang: their connections are taken and nothing is said. Who asks has his
 * answer without them.
 */
import type { Clock } from "../core/clock.js";
import { HELLO_DEADLINE_MS } from "../replica/limits.js";
import { type NodeDescription, parseDescription } from "./description.js";
import { askText, type DialEnvironment, type NodeAddress, type NodePlace, refused } from "./dial.js";
import type { ClusterKey } from "./key.js";
import { Purpose } from "./prelude.js";

/** Once there are enough answers, the others are waited for so long: most of them are on their way. */
const STRAGGLERS_MS = 500;
/** While there are not, so long. */
const ENOUGH_MS = HELLO_DEADLINE_MS;
/** One node that is asked how it is: as long as one that hangs keeps its volumes. */
const DESCRIPTION_MS = 5000;

/** What has come of each question once `enough` were answered and the others had their time; null: nothing. */
export function mostOf<T>(
  clock: Pick<Clock, "setTimer">,
  asked: readonly Promise<T>[],
  enough: number,
): Promise<(PromiseSettledResult<T> | null)[]> {
  return new Promise((resolve) => {
    const outcomes: (PromiseSettledResult<T> | null)[] = asked.map(() => null);
    const end = (): void => {
      timer.cancel();
      resolve([...outcomes]);
    };
    let timer = clock.setTimer(ENOUGH_MS, end);
    const settled = (i: number, outcome: PromiseSettledResult<T>): void => {
      outcomes[i] = outcome;
      const answers = outcomes.filter((one) => one?.status === "fulfilled").length;
      if (!outcomes.includes(null)) {
        end();
      } else if (answers === enough && outcome.status === "fulfilled") {
        timer.cancel();
        timer = clock.setTimer(STRAGGLERS_MS, end);
      }
    };
    asked.forEach((question, i) => {
      question.then(
        (value) => settled(i, { status: "fulfilled", value }),
        (reason: unknown) => settled(i, { status: "rejected", reason }),
      );
    });
  });
}

/** Why a question to the node at `address` has no answer. */
export function faultText(address: NodeAddress, outcome: PromiseRejectedResult | null): string {
  const reason: unknown = outcome === null ? refused(address, "it does not answer") : outcome.reason;
  return reason instanceof Error ? reason.message : String(reason);
}

/** What a node says of itself, or why it says nothing. */
export function hearNode(
  dial: DialEnvironment,
  key: ClusterKey,
  { node, address }: NodePlace,
): Promise<NodeDescription | string> {
  return new Promise((resolve) => {
    const timer = dial.clock.setTimer(DESCRIPTION_MS, () => resolve(faultText(address, null)));
    void askText(dial, key, { address, purpose: Purpose.Describe, expected: node })
      .then(({ text }): NodeDescription | string => parseDescription(text))
      .catch((reason: unknown) => faultText(address, { status: "rejected", reason }))
      .then((said) => {
        timer.cancel();
        resolve(said);
      });
  });
}
