/** The metrics of a server, asked for over the admin socket in its data directory. */
import { request } from "node:http";
import { join } from "node:path";

export async function metrics(data: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const asked = request({
      socketPath: join(data, "admin.sock"),
      path: "/metrics",
      headers: { host: "localhost" },
    });
    asked.once("error", reject);
    asked.once("response", (answer) => {
      let text = "";
      answer.setEncoding("utf8");
      answer.on("data", (piece: string) => {
        text += piece;
      });
      answer.once("end", () => resolve(text));
    });
    asked.end();
  });
}

/** Value of a metric that has no labels. */
export function metricValue(text: string, name: string): number {
  const match = new RegExp(`^${name} (\\S+)$`, "m").exec(text);
  if (match === null) throw new Error(`no metric ${name}`);
  return Number(match[1]);
}
