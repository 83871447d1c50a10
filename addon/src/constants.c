/*
 * The numbers that JavaScript writes into submission entries, as this machine's headers have them. A test
 * compares them with lib/uring/abi.ts.
 */
#include "addon.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

napi_value constants_object(napi_env env) {
  napi_value object;
  if (napi_create_object(env, &object) != napi_ok) return NULL;
#define CONSTANT(name) set_number(env, object, #name, (double)(name))
  CONSTANT(IORING_OP_NOP);
  CONSTANT(IORING_OP_READ);
  CONSTANT(IORING_OP_WRITE);
  CONSTANT(IORING_OP_FSYNC);
  CONSTANT(IORING_OP_FALLOCATE);
  CONSTANT(IORING_OP_POLL_ADD);
  CONSTANT(IORING_OP_SENDMSG);
  CONSTANT(IORING_OP_SEND);
  CONSTANT(IORING_OP_RECV);
  CONSTANT(IORING_OP_ACCEPT);
  CONSTANT(IORING_OP_CONNECT);
  CONSTANT(IORING_OP_ASYNC_CANCEL);
  CONSTANT(IORING_FSYNC_DATASYNC);
  CONSTANT(IORING_ASYNC_CANCEL_ALL);
  CONSTANT(IORING_ASYNC_CANCEL_FD);
  CONSTANT(IORING_RECVSEND_POLL_FIRST);
  CONSTANT(IORING_ACCEPT_MULTISHOT);
  CONSTANT(IORING_POLL_ADD_MULTI);
  CONSTANT(IORING_CQE_F_MORE);
  CONSTANT(IORING_CQE_F_SOCK_NONEMPTY);
  CONSTANT(IORING_SQ_CQ_OVERFLOW);
  CONSTANT(IORING_SQ_TASKRUN);
  CONSTANT(IORING_CQ_EVENTFD_DISABLED);
  CONSTANT(IORING_SETUP_COOP_TASKRUN);
  CONSTANT(IORING_SETUP_TASKRUN_FLAG);
  CONSTANT(IORING_SETUP_SINGLE_ISSUER);
  CONSTANT(FALLOC_FL_KEEP_SIZE);
  CONSTANT(FALLOC_FL_PUNCH_HOLE);
  CONSTANT(FALLOC_FL_ZERO_RANGE);
  CONSTANT(MSG_NOSIGNAL);
  CONSTANT(MSG_WAITALL);
  CONSTANT(SOCK_CLOEXEC);
  CONSTANT(SHUT_WR);
  CONSTANT(POLLIN);
  CONSTANT(SOL_SOCKET);
  CONSTANT(SO_ERROR);
  CONSTANT(SO_KEEPALIVE);
  CONSTANT(IPPROTO_TCP);
  CONSTANT(TCP_NODELAY);
  CONSTANT(TCP_KEEPIDLE);
  CONSTANT(TCP_KEEPINTVL);
  CONSTANT(TCP_KEEPCNT);
  CONSTANT(TCP_USER_TIMEOUT);
#undef CONSTANT
#define OFFSET(structure, member) \
  set_number(env, object, #structure "." #member, (double)offsetof(struct structure, member))
  OFFSET(io_uring_sqe, opcode);
  OFFSET(io_uring_sqe, flags);
  OFFSET(io_uring_sqe, ioprio);
  OFFSET(io_uring_sqe, fd);
  OFFSET(io_uring_sqe, off);
  OFFSET(io_uring_sqe, addr);
  OFFSET(io_uring_sqe, len);
  OFFSET(io_uring_sqe, msg_flags);
  OFFSET(io_uring_sqe, user_data);
  OFFSET(io_uring_cqe, user_data);
  OFFSET(io_uring_cqe, res);
  OFFSET(io_uring_cqe, flags);
  OFFSET(msghdr, msg_iov);
  OFFSET(msghdr, msg_iovlen);
  OFFSET(msghdr, msg_control);
  OFFSET(iovec, iov_base);
  OFFSET(iovec, iov_len);
#undef OFFSET
  set_number(env, object, "sizeof io_uring_sqe", sizeof(struct io_uring_sqe));
  set_number(env, object, "sizeof io_uring_cqe", sizeof(struct io_uring_cqe));
  set_number(env, object, "sizeof msghdr", sizeof(struct msghdr));
  set_number(env, object, "sizeof iovec", sizeof(struct iovec));
  set_number(env, object, "CHECKSUM_WINDOW", CHECKSUM_WINDOW);
  return object;
}
