/** LISTEN_FDS counts only for the process that LISTEN_PID names, and is not passed on. */
import t from "tap";
import { inheritedListeners } from "../../../lib/gateway/activation.js";

void t.test("sd_listen_fds", (t) => {
  const cases: [Record<string, string>, number[]][] = [
    [{ LISTEN_PID: "42", LISTEN_FDS: "2", LISTEN_FDNAMES: "a:b" }, [3, 4]],
    [{ LISTEN_PID: "41", LISTEN_FDS: "2" }, []],
    [{ LISTEN_FDS: "1" }, []],
    [{ LISTEN_PID: "42" }, []],
    [{ LISTEN_PID: "42", LISTEN_FDS: "0" }, []],
    [{ LISTEN_PID: "42", LISTEN_FDS: "-1" }, []],
    [{ LISTEN_PID: "42", LISTEN_FDS: "1e9" }, []],
    [{ LISTEN_PID: "42", LISTEN_FDS: "x" }, []],
  ];
  for (const [environment, fds] of cases) {
    const found = inheritedListeners(environment, 42);
    t.same(
      found,
      fds.map((fd) => ({ kind: "fd", fd })),
    );
    t.same(environment, {}, "the variables are gone");
  }
  t.end();
});
