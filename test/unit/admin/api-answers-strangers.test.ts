import { statSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import t from "tap";
import { startRig } from "./support/rig.js";

t.test("over TCP, nothing without the token but health and metrics", async (t) => {
  const { ask, token } = await startRig(t);
  const tcp = { side: "tcp" } as const;
  t.equal((await ask("/healthz", tcp)).status, 200);
  t.equal((await ask("/metrics", tcp)).status, 200);
  for (const path of ["/v1/status", "/v1/volumes", "/v1/events", "/v1/nothing", "/"]) {
    const answer = await ask(path, tcp);
    t.equal(answer.status, 401, path);
    t.match(answer.json, { error: { code: "LAMINA_UNAUTHORIZED", next: /LAMINA_TOKEN/ } });
  }
  const body = { name: "v", size: 4096 };
  t.equal((await ask("/v1/volumes", { ...tcp, method: "POST", body })).status, 401);
  for (const wrong of [
    "Bearer",
    "Bearer ",
    `Bearer ${token}x`,
    `Bearer ${token.slice(1)}`,
    `Basic ${token}`,
  ]) {
    t.equal((await ask("/v1/status", { ...tcp, headers: { authorization: wrong } })).status, 401, wrong);
  }
  t.equal((await ask("/v1/status", { ...tcp, headers: { authorization: `Bearer ${token}` } })).status, 200);
});

t.test("a name that a web page may have pointed at us", async (t) => {
  const { ask, token } = await startRig(t);
  const authorization = `Bearer ${token}`;
  for (const host of [
    "evil.example",
    "evil.example:10810",
    "localhost.evil.example",
    "127.0.0.1.nip.example",
  ]) {
    const answer = await ask("/healthz", { side: "tcp", headers: { host, authorization } });
    t.not(answer.status, 200, `'${host}'`);
  }
  for (const host of ["localhost", "LOCALHOST:1", "127.0.0.1:99", "[::1]:99", "10.1.2.3"]) {
    t.equal((await ask("/v1/status", { side: "tcp", headers: { host, authorization } })).status, 200, host);
  }
});

t.test("the socket and the token are the owner's alone", async (t) => {
  const { directory, ask } = await startRig(t);
  t.equal(statSync(join(directory, "admin.sock")).mode & 0o777, 0o600);
  t.equal(statSync(join(directory, "admin.token")).mode & 0o777, 0o600);
  t.equal((await ask("/v1/status")).status, 200, "no token is asked for on the socket");
});

t.test("bodies that are too long, not JSON, or not declared as such", async (t) => {
  const { ask, errors } = await startRig(t);
  const post = { method: "POST" } as const;
  const long = await ask("/v1/volumes", { ...post, raw: `{"name":"${"x".repeat(70_000)}"}` }).catch(
    () => null,
  );
  t.ok(long === null || long.status === 400, "too long: refused, or cut off while it is sent");
  t.match((await ask("/v1/volumes", { ...post, raw: "{" })).json, { error: { message: /not JSON/ } });
  const plain = { "content-type": "text/plain" };
  t.equal((await ask("/v1/volumes", { ...post, raw: "{}", headers: plain })).status, 400);
  t.equal((await ask("/v1/volumes", { ...post })).status, 400, "none at all");
  t.equal((await ask("/v1/volumes")).status, 200, "and it goes on");
  t.same(errors, [], "none of this is the server's fault");
});

t.test("a request line that is no request", async (t) => {
  const { admin, ask } = await startRig(t);
  const socket = connect(Number(admin.address.split(":").at(-1)), "127.0.0.1");
  socket.end("\x16\x03\x01\x02\x00 not http\r\n\r\n");
  const closed = new Promise((resolve) => socket.once("close", resolve));
  socket.resume();
  await closed;
  for (const path of ["//", "/v1/volumes/%", "/v1/volumes/%00", "/v1/volumes/..%2f..", "/v1//volumes"]) {
    const answer = await ask(path);
    t.equal(answer.status, 404, path);
  }
  t.equal((await ask("/v1/status", { method: "PUT" })).status, 405);
});
