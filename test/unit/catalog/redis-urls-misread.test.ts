import t from "tap";
import { describeTarget, parseRedisUrl } from "../../../lib/catalog/index.js";
import { LaminaError } from "../../../lib/core/errors.js";

const open = { username: null, password: null };

t.test("what each form means", async (t) => {
  t.same(parseRedisUrl("redis://h"), {
    kind: "tcp",
    at: { host: "h", port: 6379 },
    db: 0,
    tls: false,
    ...open,
  });
  t.same(parseRedisUrl("rediss://u:p%40x@[::1]:7000/3"), {
    kind: "tcp",
    at: { host: "::1", port: 7000 },
    db: 3,
    tls: true,
    username: "u",
    password: "p@x",
  });
  t.match(parseRedisUrl("redis://:secret@h"), { username: null, password: "secret" });
  for (const scheme of ["unix", "redis+unix", "redis-socket"]) {
    t.same(parseRedisUrl(`${scheme}:///run/r%20.sock?db=2`), {
      kind: "unix",
      path: "/run/r .sock",
      db: 2,
      ...open,
    });
  }
  t.match(parseRedisUrl("unix://:pw@/run/r.sock"), { path: "/run/r.sock", password: "pw" });
  t.same(parseRedisUrl("redis-sentinel://a,b:1,c/main/4"), {
    kind: "sentinel",
    hosts: [
      { host: "a", port: 26_379 },
      { host: "b", port: 1 },
      { host: "c", port: 26_379 },
    ],
    master: "main",
    db: 4,
    ...open,
  });
  t.same(parseRedisUrl("redis-cluster://a:1,b:2"), {
    kind: "cluster",
    hosts: [
      { host: "a", port: 1 },
      { host: "b", port: 2 },
    ],
    tls: false,
    ...open,
  });
  t.match(parseRedisUrl("rediss-cluster://a"), { tls: true });
});

t.test("what cannot be used is refused, without showing a password", async (t) => {
  const bad = [
    "",
    "localhost:6379",
    "http://h",
    "redis://",
    "redis://h:0",
    "redis://h:70000",
    "redis://h/x",
    "redis://a,b",
    "redis://h?x=1",
    "redis://u:secret@h:bad",
    "redis://%zz:secret@h",
    "unix://relative",
    `unix:///${"x".repeat(107)}`,
    "redis-sentinel://a,b",
    "redis-cluster://a/1",
  ];
  for (const url of bad) {
    let error: unknown;
    try {
      parseRedisUrl(url);
    } catch (thrown) {
      error = thrown;
    }
    t.ok(error instanceof LaminaError && error.code === "REDIS_URL_INVALID", `'${url}'`);
    t.notMatch(String(error), "secret");
  }
});

t.test("a description has no secret and reads the same again", async (t) => {
  for (const url of [
    "redis://:pw@h:1/2",
    "rediss://u:pw@h",
    "unix://:pw@/s",
    "redis-sentinel://:pw@a,b/m/1",
  ]) {
    const text = describeTarget(parseRedisUrl(url));
    t.notMatch(text, "pw");
    t.equal(describeTarget(parseRedisUrl(text)), text);
  }
});
