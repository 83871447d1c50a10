import fc from "fast-check";
import t from "tap";
import { formatBytes, parseBytes, parseVolumeSize } from "../../../lib/cli/size.js";
import type { LaminaError } from "../../../lib/core/errors.js";

t.test("units are powers of 1024", async (t) => {
  const sizes: [string, number][] = [
    ["4096", 4096],
    ["256K", 262_144],
    ["10G", 10 * 2 ** 30],
    ["10g", 10 * 2 ** 30],
    ["10GiB", 10 * 2 ** 30],
    ["10GB", 10 * 2 ** 30],
    ["1.5T", 1.5 * 2 ** 40],
    ["7P", 7 * 2 ** 50],
    ["100 T", 100 * 2 ** 40],
  ];
  for (const [text, bytes] of sizes) t.equal(parseBytes(text), bytes, text);
  t.throws(() => parseBytes("8P"), { code: "SIZE_TOO_LARGE" }, "beyond exact numbers");
});

t.test(
  "every multiple of 4096 in range is a size of a volume, everything else names the next one",
  async (t) => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 2 ** 40 }), (bytes) => {
        if (bytes % 4096 === 0) return parseVolumeSize(String(bytes)) === bytes;
        try {
          parseVolumeSize(String(bytes));
          return false;
        } catch (error) {
          const next = Number((error as LaminaError).params["next"]);
          return next > bytes && next - bytes < 4096 && next % 4096 === 0;
        }
      }),
    );
    t.pass("held");
  },
);

t.test("what is printed is never more than what is there", async (t) => {
  t.equal(formatBytes(0), "0 B");
  t.equal(formatBytes(1023), "1023 B");
  t.equal(formatBytes(1024), "1 KiB");
  t.equal(formatBytes(1.96 * 2 ** 30), "1.9 GiB");
  t.equal(formatBytes(100 * 2 ** 40), "100 TiB");
});
