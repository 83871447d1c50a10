import t from "tap";
import { attach, attached, detach, volumeUri } from "../../../lib/cli/attach.js";
import { run } from "../../interop/support/process.js";
import { attachProgram } from "../../vm/support/attach.js";
import { MISSING } from "./support.js";

t.test("on a listener of the server", (t) => {
  t.equal(volumeUri("nbd://127.0.0.1:10809", "disk1"), "nbd://127.0.0.1/disk1");
  t.equal(volumeUri("nbd://127.0.0.1:10810/", "disk1"), "nbd://127.0.0.1:10810/disk1");
  t.equal(volumeUri("nbd://0.0.0.0:10809", "disk1"), "nbd://127.0.0.1/disk1", "everywhere is also here");
  t.equal(volumeUri("nbd://[::]:10809", "disk1"), "nbd://[::1]/disk1");
  t.equal(volumeUri("nbd+unix:///?socket=/run/l.sock", "disk1"), "nbd+unix:///disk1?socket=/run/l.sock");
  t.equal(volumeUri("nbds://127.0.0.1:10809", "disk1"), "nbds://127.0.0.1/disk1", "never a way around TLS");
  t.end();
});

t.test("the commands are there", (t) => {
  for (const command of [attach, detach, attached]) t.type(command.register, "function");
  t.end();
});

const MISUSED: readonly (readonly [args: readonly string[], says: RegExp])[] = [
  [[], /lamina-attach attach URI/],
  [["frobnicate"], /lamina-attach attach URI/],
  [["attach"], /URI is missing/],
  [["attach", "disk1"], /not an NBD URI/],
  [["attach", "nbds://h/v"], /TLS, which the kernel's client does not have/],
  [["attach", "nbds+unix:///v?socket=/s"], /TLS/],
  [["attach", "nbd://h/v", "second"], /one argument too many/],
  [["attach", "nbd://h/v", "--frob", "1"], /no option '--frob'/],
  [["attach", "nbd://h/v", "--timeout"], /value is missing/],
  [["attach", "nbd://h/v", "--timeout", "0"], /1 to 3600/],
  [["attach", "nbd://h/v", "--timeout", "3601"], /1 to 3600/],
  [["attach", "nbd://h/v", "--timeout", "-1"], /1 to 3600/],
  [["attach", "nbd://h/v", "--timeout", "1x"], /1 to 3600/],
  [["attach", "nbd://h/v", "--connections", "17"], /1 to 16/],
  [["attach", "nbd://h/v", "--connections", "99999999999999999999"], /1 to 16/],
  [["attach", "nbd://h/v", "--block-size", "1000"], /512, 1024, 2048 or 4096/],
  [["attach", "nbd://h/v", "--device", "/dev/sda"], /not an NBD device/],
  [["attach", "nbd://h/v", "--device", "/dev/nbd0p1"], /not an NBD device/],
  [["attach", "nbd://h/v", "--device", "/dev/nbd1048576"], /not an NBD device/],
  [["attach", "nbd://h:0/v"], /port/],
  [["attach", "nbd://h:65536/v"], /port/],
  [["attach", "nbd://h:/v"], /port/],
  [["attach", "nbd:///v"], /names no host/],
  [["attach", "nbd://::1/v"], /not a host and port/],
  [["attach", "nbd://[::1/v"], /not a host/],
  [["attach", "nbd://h/v?tls-type=psk"], /not understood/],
  [["attach", "nbd://h/%00"], /name of the export/],
  [["attach", "nbd://h/%zz"], /name of the export/],
  [["attach", `nbd://h/${"v".repeat(257)}`], /name of the export/],
  [["attach", `nbd://h/${"v".repeat(2000)}`], /longer than 1023/],
  [["attach", "nbd://h/a b"], /percent-encoded/],
  [["attach", "nbd://h/\u001b"], /percent-encoded/],
  [["attach", "nbd+unix:///v"], /socket/],
  [["attach", "nbd+unix:///v?socket=relative"], /path cannot be used/],
  [["attach", `nbd+unix:///v?socket=/${"x".repeat(140)}`], /path cannot be used/],
  [["attach", "nbd+unix:///v?socket=/a&x=1"], /exactly one parameter/],
  [["attach", "nbd+unix://host/v?socket=/a"], /has no host/],
  [["attach", "nbd+unix:///v?socket=/a", "--address", "h"], /no other addresses/],
  [["detach"], /one device or URI/],
  [["detach", "/dev/nbd0", "/dev/nbd1"], /one device or URI/],
  [["list", "extra"], /not understood/],
  [["monitor", "extra"], /no arguments/],
  [["name", "sda"], /one device/],
];

t.test("wrong usage ends with 64 and says what is wrong", MISSING, async (t) => {
  for (const [args, says] of MISUSED) {
    const result = await run(attachProgram("sanitize"), args);
    t.equal(result.code, 64, args.join(" "));
    t.match(result.stderr, says, args.join(" "));
    t.notMatch(result.stderr, /Sanitizer|runtime error/);
  }
});
