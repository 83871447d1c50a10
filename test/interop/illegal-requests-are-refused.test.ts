import t from "tap";
import { check } from "./support/process.js";
import { requires } from "./support/requirements.js";
import { serveVolume } from "./support/volume.js";

// libnbd with its own checks switched off says what a well-behaved client never would.
const PRELUDE = `
import errno
h.set_strict_mode(0)
def refused(what, action, *expected):
    try:
        action()
    except nbd.Error as error:
        assert error.errnum in expected, "%s: errno %s" % (what, errno.errorcode.get(error.errnum, error.errnum))
        print("refused", what)
    else:
        raise AssertionError(what + " was accepted")
`;

/** nbdsh takes the first python3 of the PATH; the module belongs to the system's. */
const SYSTEM_PYTHON = { PATH: "/usr/bin:/bin:/usr/sbin:/sbin" };

async function nbdsh(uri: string | null, script: string): Promise<string> {
  const connect = uri === null ? [] : ["-u", uri];
  return check("nbdsh", [...connect, "-c", PRELUDE + script], { env: SYSTEM_PYTHON });
}

const needs = requires({ commands: ["nbdsh"] });

t.test("requests outside the volume", needs, async (t) => {
  const { uri } = await serveVolume(t, "16M");
  const out = await nbdsh(
    uri,
    `
size = h.get_size()
block = bytearray(b"x" * 4096)
refused("read past the end", lambda: h.pread(4096, size), errno.EINVAL)
refused("read over the end", lambda: h.pread(8192, size - 4096), errno.EINVAL)
refused("write past the end", lambda: h.pwrite(block, size), errno.ENOSPC, errno.EINVAL)
refused("write over the end", lambda: h.pwrite(block, size - 512), errno.ENOSPC, errno.EINVAL)
refused("trim over the end", lambda: h.trim(8192, size - 4096), errno.EINVAL, errno.ENOSPC)
refused("zero over the end", lambda: h.zero(8192, size - 4096), errno.EINVAL, errno.ENOSPC)
refused("read near 2^63", lambda: h.pread(4096, 2**63 - 8192), errno.EINVAL)
h.pwrite(block, 0)
assert h.pread(4096, 0) == block
print("served afterwards")
`,
  );
  t.equal(out.match(/^refused/gm)?.length, 7);
  t.match(out, /served afterwards/);
});

t.test("unknown commands and flags that a command does not have", needs, async (t) => {
  const { uri } = await serveVolume(t, "16M");
  const out = await nbdsh(
    uri,
    `
block = bytearray(b"x" * 4096)
refused("FAST_ZERO on write", lambda: h.pwrite(block, 0, flags=nbd.CMD_FLAG_FAST_ZERO), errno.EINVAL)
refused("REQ_ONE on trim", lambda: h.trim(4096, 0, flags=nbd.CMD_FLAG_REQ_ONE), errno.EINVAL)
refused("unknown flag bit on read", lambda: h.pread(4096, 0, flags=1 << 12), errno.EINVAL)
h.pwrite(block, 0)
assert h.pread(4096, 0) == block
print("served afterwards")
`,
  );
  t.equal(out.match(/^refused/gm)?.length, 3);
  t.match(out, /served afterwards/);
});

t.test("FUA is taken on every command", needs, async (t) => {
  const { uri } = await serveVolume(t, "16M");
  const out = await nbdsh(
    uri,
    `
fua = nbd.CMD_FLAG_FUA
block = bytearray(b"y" * 4096)
h.pwrite(block, 4096, flags=fua)
h.flush(flags=fua)
h.trim(4096, 0, flags=fua)
h.zero(4096, 8192, flags=fua)
h.cache(4096, 0, flags=fua)
assert h.pread(4096, 4096, flags=fua) == block
print("all taken")
`,
  );
  t.match(out, /all taken/);
});

t.test("a volume that does not exist", needs, async (t) => {
  const { server } = await serveVolume(t, "16M");
  const out = await nbdsh(
    null,
    `
refused("unknown name", lambda: h.connect_uri(${JSON.stringify(server.uri("nothing-of-this-name"))}), errno.ENOENT)
print("done")
`,
  );
  t.match(out, /refused unknown name/);
});

t.test("a read of more than 32 MiB", needs, async (t) => {
  const { uri } = await serveVolume(t, "128M");
  // libnbd itself stops at 64 MiB.
  const out = await nbdsh(
    uri,
    `
refused("read of 33 MiB", lambda: h.pread(33 * 1024 * 1024, 0), errno.EINVAL, errno.EOVERFLOW, errno.ENOMEM)
print(len(h.pread(32 * 1024 * 1024, 0)))
`,
  );
  t.match(out, /33554432/);
});
