/** Access rules: whole bits of addresses, exact names, default deny once there is a rule. */
import t from "tap";
import { addressFits } from "../../../lib/core/address.js";
import { accessOf } from "../../../lib/gateway/access.js";
import { Access, type ClientIdentity } from "../../../lib/gateway/exports.js";
import type { AccessRule, VolumeRecord } from "../../../lib/replica/record.js";
import { Loop } from "./support/loop.js";
import { ModelVolume } from "./support/model-volume.js";

void t.test("CVE-2013-6410: prefixes", (t) => {
  const cases: [string, string, boolean][] = [
    ["10.0.0.1", "10.0.0.1", true],
    ["10.0.0.1", "10.0.0.10", false],
    ["10.0.0.0/8", "10.255.0.1", true],
    ["10.0.0.0/8", "100.0.0.1", false],
    ["192.168.1.0/25", "192.168.1.127", true],
    ["192.168.1.0/25", "192.168.1.128", false],
    ["0.0.0.0/0", "8.8.8.8", true],
    ["0.0.0.0/0", "::1", false],
    ["10.0.0.1", "::ffff:10.0.0.1", true],
    ["::ffff:10.0.0.0/104", "10.0.0.1", false],
    ["fd00::/8", "fd12:3456::1", true],
    ["fd00::/8", "fe80::1", false],
    ["fe80::1", "fe80::1%eth0", true],
    ["::1", "0:0:0:0:0:0:0:1", true],
    ["2001:db8::/33", "2001:db8:7fff::1", true],
    ["2001:db8::/33", "2001:db8:8000::1", false],
    ["10.0.0.0/33", "10.0.0.0", false],
    ["10.0.0.0/", "10.0.0.0", false],
    ["10.0.0", "10.0.0.0", false],
    ["010.0.0.1", "10.0.0.1", false],
    ["1::2::3", "1::3", false],
    ["", "", false],
    ["nonsense", "nonsense", false],
  ];
  for (const [prefix, host, fits] of cases) t.equal(addressFits(prefix, host), fits, `${prefix} ${host}`);
  t.end();
});

void t.test("rules", (t) => {
  const volume = new ModelVolume(new Loop(), "v", 4096);
  const client = (change: Partial<ClientIdentity>): ClientIdentity => ({
    peer: { family: "tcp", host: "10.1.2.3", port: 1 },
    tls: false,
    certificate: null,
    psk: null,
    ...change,
  });
  const access = (rules: readonly AccessRule[], who: ClientIdentity): Access => {
    const record: VolumeRecord = { ...volume.record, access: rules };
    return accessOf(record, who);
  };
  t.equal(access([], client({})), Access.ReadWrite, "no rule: open");
  const alice: AccessRule = { kind: "cert", value: "alice", readOnly: false };
  t.equal(access([alice], client({})), Access.None, "one rule: closed to others");
  t.equal(access([alice], client({ certificate: "alice" })), Access.ReadWrite);
  t.equal(access([alice], client({ certificate: "alice2" })), Access.None);
  t.equal(access([alice], client({ psk: "alice" })), Access.None, "a key is not a certificate");
  const everyone: AccessRule = { kind: "address", value: "10.0.0.0/8", readOnly: true };
  t.equal(access([everyone, alice], client({})), Access.ReadOnly);
  t.equal(access([everyone, alice], client({ certificate: "alice" })), Access.ReadWrite, "the widest counts");
  const key: AccessRule = { kind: "psk", value: "qemu", readOnly: false };
  t.equal(access([key], client({ psk: "qemu" })), Access.ReadWrite);
  t.equal(
    access([everyone], client({ peer: { family: "unix", host: "", port: 0 } })),
    Access.None,
    "a unix socket has no address",
  );
  t.end();
});
