// NBD URIs: the examples of doc/uri.md, round trips, and one sentence for every mistake.
import fc from "fast-check";
import { formatNbdUri, type NbdUri, NbdUriError, parseNbdUri } from "nbd-protocol-ts";
import t from "tap";

const tcp = (host: string, port = 10809): NbdUri["endpoint"] => ({ kind: "tcp", host, port });
const unix = (path: string): NbdUri["endpoint"] => ({ kind: "unix", path });

t.test("the examples of the specification", async (t) => {
  const examples: readonly (readonly [string, NbdUri])[] = [
    ["nbd://example.com/disk", { tls: false, endpoint: tcp("example.com"), exportName: "disk" }],
    ["nbd://example.com:10809/export", { tls: false, endpoint: tcp("example.com"), exportName: "export" }],
    ["nbd+unix:///disk?socket=sock", { tls: false, endpoint: unix("sock"), exportName: "disk" }],
    ["nbd://example.com/", { tls: false, endpoint: tcp("example.com"), exportName: "" }],
    ["nbd://example.com", { tls: false, endpoint: tcp("example.com"), exportName: "" }],
    ["nbd://example.com//disk", { tls: false, endpoint: tcp("example.com"), exportName: "/disk" }],
    [
      "nbd://example.com/hello%20world",
      { tls: false, endpoint: tcp("example.com"), exportName: "hello world" },
    ],
    ["nbd+unix:///?socket=%00/abstract", { tls: false, endpoint: unix("\0/abstract"), exportName: "" }],
    ["nbds://[::1]:2000/v", { tls: true, endpoint: tcp("::1", 2000), exportName: "v" }],
    ["NBD://h:/v", { tls: false, endpoint: tcp("h"), exportName: "v" }],
    ["nbd://h/v?x-mine=1", { tls: false, endpoint: tcp("h"), exportName: "v" }],
    [
      "nbds+unix://alice@/v?socket=/run/s&tls-type=psk&tls-hostname=h&tls-verify-peer=0&tls-psk-file=/k",
      {
        tls: true,
        endpoint: unix("/run/s"),
        exportName: "v",
        username: "alice",
        tlsType: "psk",
        tlsHostname: "h",
        tlsVerifyPeer: false,
        tlsPskFile: "/k",
      },
    ],
  ];
  for (const [uri, want] of examples) {
    t.same(parseNbdUri(uri), want, uri);
    t.same(parseNbdUri(formatNbdUri(want)), want, `${uri} and back`);
  }
});

t.test("mistakes are named", async (t) => {
  for (const [uri, want] of [
    ["", /not a URI/],
    ["disk", /not a URI/],
    ["http://h/v", /'http' is not one of the schemes/],
    ["nbd+tcp://h/v", /schemes/],
    ["nbd:///v", /names no host/],
    ["nbd://h:99999/v", /port 99999/],
    ["nbd://h:port/v", /not a host/],
    ["nbd://[::1/v", /not a host/],
    ["nbd://h/v?socket=/s", /'socket' belongs to/],
    ["nbd+unix:///v", /names no socket/],
    ["nbd+unix:///v?socket=", /names no socket/],
    ["nbd+unix://h/v?socket=/s", /names 'h'/],
    ["nbd://h/v?colour=red", /'colour' is unknown/],
    ["nbd://h/v?tls-type=rsa", /tls-type 'rsa'/],
    ["nbd://h/v?tls-verify-peer=maybe", /0 or 1/],
    ["nbd://h/v?tls-hostname=a&tls-hostname=b", /given twice/],
    ["nbd://h/%ff", /export name is not percent-encoded/],
    ["nbd://h/a%00b", /no NUL/],
    [`nbd://h/${"x".repeat(4097)}`, /at most 4096/],
    ["nbd://h/v#fragment", /not a URI/],
  ] as const) {
    try {
      parseNbdUri(uri);
      t.fail(`${uri} was taken`);
    } catch (error) {
      t.ok(error instanceof NbdUriError, uri);
      t.match((error as Error).message, want);
    }
  }
});

t.test("property: formatting and parsing are inverse", async (t) => {
  const name = fc.string({ unit: "binary", maxLength: 40 }).map((s) => s.replaceAll("\0", ""));
  const some = name.filter((s) => s !== "");
  const endpoint = fc.oneof(
    fc.record({
      kind: fc.constant("tcp" as const),
      host: fc.oneof(fc.domain(), fc.ipV4(), fc.ipV6(), fc.constant("fe80::1%eth0")),
      port: fc.integer({ min: 0, max: 65535 }),
    }),
    fc.record({ kind: fc.constant("unix" as const), path: some }),
  );
  const uri = fc.record(
    {
      tls: fc.boolean(),
      endpoint,
      exportName: name,
      username: name,
      tlsType: fc.constantFrom("anon" as const, "x509" as const, "psk" as const),
      tlsHostname: name,
      tlsVerifyPeer: fc.boolean(),
      tlsCertificates: name,
      tlsPskFile: name,
    },
    { requiredKeys: ["tls", "endpoint", "exportName"] },
  );
  fc.assert(
    fc.property(uri, (value) => {
      t.same(parseNbdUri(formatNbdUri(value as NbdUri)), value);
    }),
  );
});
