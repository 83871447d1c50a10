/** The record of a volume as its owner begins with it, and what people may change of it meanwhile. */
import type { Ballot } from "../api.js";
import type { ClusterRecord } from "./record.js";

/** The life of a node that took part in an activation, as it was then. */
export interface MemberLife {
  readonly bootId: string;
  readonly incarnation: number;
  /** It may lack something of the volume from before a power loss. */
  readonly lossy: boolean;
}

/** What an activation has found out. */
export interface Activated {
  readonly ballot: Ballot;
  /** Chosen under `ballot`. */
  readonly record: ClusterRecord;
  /** Of the in-sync members that took part: the life of the node that did. */
  readonly lives: ReadonlyMap<string, MemberLife>;
  /** Extents in which the in-sync members may differ. */
  readonly reconcile: ReadonlySet<number>;
  /** Extents that any of them has: no other one exists. */
  readonly extents: ReadonlySet<number>;
  /** Highest write sequence that any node named. */
  readonly sequence: number;
}

/** What people may change of a record while the volume is owned. */
export type RecordEdit = Pick<ClusterRecord, "size" | "description" | "readOnly" | "access" | "policy">;

export interface Amendment {
  readonly edit: (record: ClusterRecord) => RecordEdit;
  /** Null: the owner was over before; or, with what it is, `edit` has thrown and the record is as it was. */
  readonly done: (chosen: ClusterRecord | null, mistake?: unknown) => void;
}

/** What an amendment makes of the record, and nothing else that its edit may have touched. Null: it has thrown, and was told. */
export function changeOf({ edit, done }: Amendment, record: ClusterRecord): RecordEdit | null {
  try {
    const { size, description, readOnly, access, policy } = edit(record);
    // Which member holds which extent depends on the number of copies.
    return { size, description, readOnly, access, policy: { ...policy, replicas: record.policy.replicas } };
  } catch (mistake) {
    done(null, mistake);
    return null;
  }
}
