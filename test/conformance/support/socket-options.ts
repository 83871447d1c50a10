/**
 * Options of another process's sockets. The kernel shows them to nobody else, so a few lines of Python copy
 * the descriptors (pidfd_getfd) and ask.
 */
import { check } from "../../interop/support/process.js";

export const TCP_NODELAY = 1;
export const TCP_KEEPIDLE = 4;
export const TCP_KEEPINTVL = 5;
export const TCP_KEEPCNT = 6;
export const TCP_USER_TIMEOUT = 18;

const SCRIPT = `
import ctypes, os, socket, sys
pid, port, option = map(int, sys.argv[1:4])
SYS_pidfd_getfd = 438
libc = ctypes.CDLL(None, use_errno=True)
process = os.pidfd_open(pid)
for name in os.listdir("/proc/%d/fd" % pid):
    try:
        if not os.readlink("/proc/%d/fd/%s" % (pid, name)).startswith("socket:"):
            continue
    except FileNotFoundError:
        continue
    fd = libc.syscall(SYS_pidfd_getfd, process, int(name), 0)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "pidfd_getfd")
    s = socket.socket(fileno=fd)
    try:
        if s.family in (socket.AF_INET, socket.AF_INET6) and s.getsockname()[1] == port:
            s.getpeername()
            print(s.getsockopt(socket.IPPROTO_TCP, option))
    except OSError:
        pass
    s.close()
`;

/** The option's value on every accepted connection of `port` in process `pid`. Needs root. */
export async function tcpOptionOf(pid: number, port: number, option: number): Promise<number[]> {
  const out = await check("/usr/bin/python3", ["-c", SCRIPT, String(pid), String(port), String(option)]);
  return out.split("\n").filter(Boolean).map(Number);
}
