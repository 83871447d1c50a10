/**
 * Who may use a volume. A volume without rules is open to everyone who can connect; with the first rule
 * everyone else is shut out, and does not see that it exists. Of several rules that fit, the one that allows
 * most decides.
 *
 * A volume with a rule for certificates or keys is served over TLS only, to those as well whom a rule for
 * addresses admits: who asks for identities does not want the data in plaintext on the wire.
 */
import { addressFits } from "../core/address.js";
import type { AccessRule, VolumeRecord } from "../replica/record.js";
import { Access, type ClientIdentity } from "./exports.js";

export function accessOf(record: VolumeRecord, client: ClientIdentity): Access {
  if (record.access.length === 0) return Access.ReadWrite;
  let best: Access = Access.None;
  for (const rule of record.access) {
    if (!ruleFits(rule, client)) continue;
    if (!rule.readOnly) return Access.ReadWrite;
    best = Access.ReadOnly;
  }
  return best;
}

/** The same where a volume without rules is nobody's instead of everyone's. */
export function listedAccessOf(record: VolumeRecord, client: ClientIdentity): Access {
  return record.access.length === 0 ? Access.None : accessOf(record, client);
}

/** Whether it names certificates or keys: those are shown in TLS only, so it is served over nothing else. */
export function needsTls(record: VolumeRecord): boolean {
  return record.access.some(({ kind }) => kind !== "address");
}

function ruleFits(rule: AccessRule, client: ClientIdentity): boolean {
  switch (rule.kind) {
    case "cert":
      return client.certificate !== null && client.certificate === rule.value;
    case "psk":
      return client.psk !== null && client.psk === rule.value;
    case "address":
      return addressFits(rule.value, client.peer.host);
  }
}
