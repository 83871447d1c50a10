/** The real store as a run's subject. */
import { formatStore, fsck, metadataBytes, openStore, planFormat } from "../../lib/store/index.js";
import type { Subject } from "./subject.js";

export const storeSubject: Subject = {
  name: "store",
  format: formatStore,
  open: openStore,
  *fsck(environment) {
    return (yield* fsck(environment)).findings;
  },
  provisionedBytes: (options) => metadataBytes(planFormat(options)),
};
