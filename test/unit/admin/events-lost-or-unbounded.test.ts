import { type IncomingMessage, request } from "node:http";
import { join } from "node:path";
import t from "tap";
import { EVENT_STREAMS_MAX } from "../../../lib/admin/event-stream.js";
import { type Rig, startRig } from "./support/rig.js";

async function stream(rig: Rig, lastId?: string): Promise<IncomingMessage> {
  const headers = {
    accept: "text/event-stream",
    ...(lastId === undefined ? {} : { "last-event-id": lastId }),
  };
  return new Promise((resolve, reject) => {
    const socketPath = join(rig.directory, "admin.sock");
    request({ socketPath, path: "/v1/events", headers }, resolve).once("error", reject).end();
  });
}

async function read(response: IncomingMessage, count: number): Promise<string[]> {
  let text = "";
  for await (const part of response) {
    text += String(part);
    const ids = [...text.matchAll(/^id: (.+)$/gm)].map(([, id]) => id!);
    if (ids.length >= count) return ids;
  }
  return [];
}

t.test("a stream goes on where the last one ended", async (t) => {
  const rig = await startRig(t);
  const { events } = rig.sources;
  const ids = [1, 2, 3].map((n) => events.record("volume-created", `v${n}`, `${n}`).id);
  t.same(await read(await stream(rig, ids[0]), 2), ids.slice(1));
  const live = await stream(rig);
  const next = events.record("volume-removed", "v1", "gone").id;
  t.same(await read(live, 1), [next], "without an id it begins now");
});

t.test("pages of the list", async (t) => {
  const { ask, sources } = await startRig(t);
  for (let n = 0; n < 5; n++) sources.events.record("volume-created", "v", `${n}`);
  const texts = async (query: string): Promise<string[]> => {
    const { events } = (await ask(`/v1/events${query}`)).json as { events: { id: string; text: string }[] };
    return events.map((event) => event.text);
  };
  t.same(await texts(""), ["0", "1", "2", "3", "4"]);
  t.same(await texts("?limit=2"), ["3", "4"], "the newest");
});

t.test("streams are counted", async (t) => {
  const rig = await startRig(t);
  const open: IncomingMessage[] = [];
  for (let i = 0; i < EVENT_STREAMS_MAX; i++) open.push(await stream(rig));
  const over = await stream(rig);
  t.equal(over.statusCode, 503);
  over.resume();
  for (const response of open) response.destroy();
});
