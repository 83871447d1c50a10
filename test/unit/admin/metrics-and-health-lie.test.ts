import t from "tap";
import { startRig } from "./support/rig.js";

function value(text: string, series: string): number {
  const line = text.split("\n").find((candidate) => candidate.startsWith(`${series} `));
  return line === undefined ? Number.NaN : Number(line.slice(series.length + 1));
}

t.test("numbers are those of the moment of the scrape", async (t) => {
  const { ask, sources } = await startRig(t);
  await ask("/v1/volumes", { method: "POST", body: { name: "v", size: 8192 } });
  const { numbers } = sources;
  numbers.requests[0] = 10;
  numbers.bytes[1] = 4096;
  numbers.errors[6] = 2;
  // Three reads of less than 4 µs, two of less than 1024 µs, one that took longer than every bucket.
  numbers.latency[2] = 3;
  numbers.latency[10] = 2;
  numbers.latency[27] = 1;
  numbers.latencySum[0] = 2_000_000;
  for (let scrape = 0; scrape < 2; scrape++) {
    const { text, headers } = await ask("/metrics");
    t.match(headers["content-type"], /text\/plain/);
    t.equal(value(text, 'lamina_requests_total{type="read"}'), 10);
    t.equal(value(text, 'lamina_request_bytes_total{type="write"}'), 4096);
    t.equal(value(text, 'lamina_request_errors_total{type="write_zeroes"}'), 2);
    const bucket = (le: string): number =>
      value(text, `lamina_request_duration_seconds_bucket{le="${le}",type="read"}`);
    t.equal(bucket("0.000004"), 3);
    t.equal(bucket("0.001024"), 5);
    t.equal(bucket("+Inf"), 6);
    t.equal(value(text, 'lamina_request_duration_seconds_count{type="read"}'), 6);
    t.equal(value(text, 'lamina_request_duration_seconds_sum{type="read"}'), 2);
    t.equal(value(text, "lamina_requests_in_flight"), 5);
    t.equal(value(text, 'lamina_store_slots{state="free"}'), 90);
    t.equal(value(text, "lamina_log_appends_total"), 7);
    t.equal(value(text, 'lamina_volume_size_bytes{volume="v"}'), 8192);
    t.equal(value(text, "lamina_gateway_connections_accepted_total"), 4);
    t.ok(value(text, "lamina_pool_bytes") > 0);
    t.ok(value(text, "lamina_process_resident_memory_bytes") > 0);
    t.ok(value(text, "lamina_nodejs_eventloop_lag_seconds") >= 0);
  }
  await ask("/v1/volumes/v", { method: "DELETE" });
  t.notMatch((await ask("/metrics")).text, /volume="v"/, "a removed volume is gone");
});

t.test("names keep to the conventions", async (t) => {
  const { ask } = await startRig(t);
  const { text } = await ask("/metrics");
  const types = [...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, name, type]) => [name!, type!] as const);
  t.ok(types.length > 30);
  for (const [name, type] of types) {
    t.ok(name.startsWith("lamina_"), name);
    if (type === "counter") t.ok(name.endsWith("_total"), `${name} is a counter`);
  }
});

t.test("a failed device is not healthy", async (t) => {
  const { ask, sources } = await startRig(t);
  t.same([(await ask("/healthz")).status, (await ask("/healthz")).text], [200, "ok\n"]);
  sources.store.failed = "write error 5";
  const answer = await ask("/healthz");
  t.equal(answer.status, 503);
  t.match(answer.text, /the device has failed: write error 5/);
  t.match((await ask("/v1/status")).json, { ready: false, notices: [/the device has failed/] });
});
