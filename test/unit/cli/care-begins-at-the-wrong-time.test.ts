import t from "tap";
import { resolveGatewayOptions } from "../../../lib/cli/cluster/options.js";

function careAfterMs(careAfter?: string): number | null {
  return resolveGatewayOptions({ cluster: "127.0.0.1:1", listen: ["127.0.0.1:2"], careAfter }).careAfterMs;
}

t.test("--care-after is seconds, or off", (t) => {
  t.equal(careAfterMs(), 30_000);
  t.equal(careAfterMs("1"), 1000);
  t.equal(careAfterMs("86400"), 86_400_000);
  t.equal(careAfterMs("off"), null);
  for (const text of ["0", "-1", "1.5", "86401", "9999999", "never", "", "1s"])
    t.throws(() => careAfterMs(text), { code: "USAGE" }, text);
  t.end();
});
