/**
 * Numbers of Linux's interface that this room writes into shared memory or passes to system calls, under
 * their own names. The addon exports the same from the system's headers; a test compares the two.
 */
export const IORING_OP_FSYNC = 3;
export const IORING_OP_POLL_ADD = 6;
export const IORING_OP_SENDMSG = 9;
export const IORING_OP_ACCEPT = 13;
export const IORING_OP_ASYNC_CANCEL = 14;
export const IORING_OP_CONNECT = 16;
export const IORING_OP_FALLOCATE = 17;
export const IORING_OP_READ = 22;
export const IORING_OP_WRITE = 23;
export const IORING_OP_SEND = 26;
export const IORING_OP_RECV = 27;

export const IORING_FSYNC_DATASYNC = 1;
export const IORING_ASYNC_CANCEL_ALL = 1;
export const IORING_ASYNC_CANCEL_FD = 2;
export const IORING_RECVSEND_POLL_FIRST = 1;
export const IORING_ACCEPT_MULTISHOT = 1;
export const IORING_POLL_ADD_MULTI = 1;

export const IORING_CQE_F_MORE = 2;
export const IORING_CQE_F_SOCK_NONEMPTY = 4;
export const IORING_SQ_CQ_OVERFLOW = 2;
export const IORING_SQ_TASKRUN = 4;
export const IORING_CQ_EVENTFD_DISABLED = 1;

export const IORING_SETUP_COOP_TASKRUN = 0x100;
export const IORING_SETUP_TASKRUN_FLAG = 0x200;
export const IORING_SETUP_SINGLE_ISSUER = 0x1000;

export const FALLOC_FL_KEEP_SIZE = 1;
export const FALLOC_FL_PUNCH_HOLE = 2;
export const FALLOC_FL_ZERO_RANGE = 0x10;

export const MSG_WAITALL = 0x100;
export const MSG_NOSIGNAL = 0x4000;
export const SOCK_CLOEXEC = 0x80000;
export const SHUT_WR = 1;
export const POLLIN = 1;
export const SOL_SOCKET = 1;
export const SO_KEEPALIVE = 9;
export const IPPROTO_TCP = 6;
export const TCP_NODELAY = 1;
export const TCP_KEEPIDLE = 4;
export const TCP_KEEPINTVL = 5;
export const TCP_KEEPCNT = 6;
export const TCP_USER_TIMEOUT = 18;

/** struct io_uring_sqe: 64 bytes, as 16 words. The first word is opcode u8, flags u8, ioprio u16. */
export const SQE_WORDS = 16;
export const SQE_WORD = {
  opcodeFlagsIoprio: 0,
  fd: 1,
  off: 2,
  addr: 4,
  len: 6,
  /** rw_flags, fsync_flags, msg_flags, accept_flags and cancel_flags share it. */
  opFlags: 7,
  userData: 8,
} as const;

/** struct io_uring_cqe: 16 bytes, as 4 words. */
export const CQE_WORDS = 4;
export const CQE_WORD = { userData: 0, res: 2, flags: 3 } as const;

/** struct msghdr, 64-bit. */
export const MSGHDR_BYTES = 56;
export const MSGHDR_IOV_BYTE = 16;
export const MSGHDR_IOVLEN_BYTE = 24;
/** struct iovec, 64-bit: base, length. */
export const IOVEC_BYTES = 16;

/** Blocks of one checksumBlocks call of the addon. */
export const CHECKSUM_WINDOW = 256;

/** Error numbers that are told apart here, negative as system calls give them. */
export const Errno = {
  ENOENT: -2,
  EINTR: -4,
  EIO: -5,
  ENXIO: -6,
  EBADF: -9,
  EAGAIN: -11,
  ENOMEM: -12,
  EBUSY: -16,
  EINVAL: -22,
  ENOTTY: -25,
  EPIPE: -32,
  ENAMETOOLONG: -36,
  EOPNOTSUPP: -95,
  EADDRINUSE: -98,
  ECONNRESET: -104,
  ECONNREFUSED: -111,
  ECANCELED: -125,
} as const;
