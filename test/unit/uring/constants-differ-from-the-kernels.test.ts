import t from "tap";
import * as abi from "../../../lib/uring/abi.js";
import { addon } from "../../../lib/uring/addon.js";

// The numbers in abi.ts are written into shared memory; those of the addon come from this machine's headers.

const { constants } = addon();

t.test("every named constant has the value of the system's headers", async (t) => {
  let compared = 0;
  for (const [name, value] of Object.entries(abi)) {
    if (
      typeof value !== "number" ||
      name.endsWith("_WORDS") ||
      name.endsWith("_BYTES") ||
      name.endsWith("_BYTE")
    ) {
      continue;
    }
    t.equal(value, constants[name], name);
    compared++;
  }
  t.ok(compared >= 30, `${compared} constants compared`);
});

t.test("submission entries, completions and message headers have the layout that is written", async (t) => {
  const word = (name: string): number => constants[name]! / 4;
  t.equal(abi.SQE_WORDS * 4, constants["sizeof io_uring_sqe"]);
  t.equal(abi.CQE_WORDS * 4, constants["sizeof io_uring_cqe"]);
  t.equal(constants["io_uring_sqe.opcode"], 0);
  t.equal(constants["io_uring_sqe.flags"], 1);
  t.equal(constants["io_uring_sqe.ioprio"], 2);
  t.equal(abi.SQE_WORD.fd, word("io_uring_sqe.fd"));
  t.equal(abi.SQE_WORD.off, word("io_uring_sqe.off"));
  t.equal(abi.SQE_WORD.addr, word("io_uring_sqe.addr"));
  t.equal(abi.SQE_WORD.len, word("io_uring_sqe.len"));
  t.equal(abi.SQE_WORD.opFlags, word("io_uring_sqe.msg_flags"));
  t.equal(abi.SQE_WORD.userData, word("io_uring_sqe.user_data"));
  t.equal(abi.CQE_WORD.userData, word("io_uring_cqe.user_data"));
  t.equal(abi.CQE_WORD.res, word("io_uring_cqe.res"));
  t.equal(abi.CQE_WORD.flags, word("io_uring_cqe.flags"));
  t.equal(abi.MSGHDR_BYTES, constants["sizeof msghdr"]);
  t.equal(abi.MSGHDR_IOV_BYTE, constants["msghdr.msg_iov"]);
  t.equal(abi.MSGHDR_IOVLEN_BYTE, constants["msghdr.msg_iovlen"]);
  t.equal(abi.IOVEC_BYTES, constants["sizeof iovec"]);
  t.equal(constants["iovec.iov_base"], 0);
  t.equal(constants["iovec.iov_len"], 8);
});
