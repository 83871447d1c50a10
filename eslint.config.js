// Typed rules that the formatter-linter does not have, and the one rule of the house that keeps the
// simulator honest: core rooms take time, timers and randomness from what is injected.
import tseslint from "typescript-eslint";

const CORE_ROOMS = ["lib/nbd/src", "lib/store", "lib/volume", "lib/replica", "lib/core"].map(
  (room) => `${room}/**/*.ts`,
);
// The gateway's connection code runs in the simulator; these files join it to sockets.
CORE_ROOMS.push("lib/gateway/!(index|tls|tls-credentials).ts");

const injected = "core rooms take time, timers and randomness from the injected Clock and Random";

export default tseslint.config(
  { ignores: ["**/dist/**", "**/build/**", "node_modules/**", ".tap/**"] },
  {
    files: ["lib/**/*.ts", "test/**/*.ts"],
    languageOptions: {
      parser: tseslint.parser,
      parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname },
    },
    plugins: { "@typescript-eslint": tseslint.plugin },
    rules: {
      "@typescript-eslint/no-floating-promises": "error",
      "@typescript-eslint/no-misused-promises": "error",
      "@typescript-eslint/await-thenable": "error",
      "@typescript-eslint/switch-exhaustiveness-check": [
        "error",
        { considerDefaultExhaustiveForUnions: true },
      ],
      "@typescript-eslint/return-await": "error",
    },
  },
  {
    files: ["test/**/*.ts"],
    rules: {
      // A subtest's promise is tap's to wait for.
      "@typescript-eslint/no-floating-promises": [
        "error",
        {
          allowForKnownSafePromises: [
            { from: "package", name: "PromiseWithSubtest", package: "@tapjs/core" },
            { from: "package", name: "PromiseWithSubtest", package: "@tapjs/test" },
          ],
        },
      ],
    },
  },
  {
    files: CORE_ROOMS,
    rules: {
      "no-restricted-globals": [
        "error",
        ...[
          "setTimeout",
          "setInterval",
          "setImmediate",
          "queueMicrotask",
          "performance",
          "process",
          "crypto",
        ].map((name) => ({ name, message: injected })),
      ],
      "no-restricted-properties": [
        "error",
        { object: "Math", property: "random", message: injected },
        { object: "Date", property: "now", message: injected },
      ],
      "no-restricted-syntax": [
        "error",
        { selector: "NewExpression[callee.name='Date'][arguments.length=0]", message: injected },
      ],
      "no-restricted-imports": [
        "error",
        { patterns: [{ group: ["node:*"], message: "core rooms do no I/O of their own" }] },
      ],
    },
  },
);
