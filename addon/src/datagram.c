/*
 * Datagrams between processes of one machine, which node:net has not: what sd_notify(3) says to the service
 * manager, and descriptors that one process hands to another (SCM_RIGHTS).
 */
#include "addon.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* DESCRIPTORS_MAX is below the kernel's own bound for one message (SCM_MAX_FD, 253). */
enum { TEXT_BYTES_MAX = 4096, DESCRIPTORS_MAX = 128 };

/* A path, or an abstract name after '@'. Length of the address, or -errno. */
static int address_of(const char *path, struct sockaddr_un *out) {
  size_t length = strlen(path);
  memset(out, 0, sizeof *out);
  out->sun_family = AF_UNIX;
  if (length < 2) return -EINVAL;
  if (length >= sizeof out->sun_path) return -ENAMETOOLONG;
  memcpy(out->sun_path, path, length);
  bool abstract = path[0] == '@';
  if (abstract) out->sun_path[0] = '\0';
  /* An abstract name has no terminator; a path is given with its own. */
  return (int)(offsetof(struct sockaddr_un, sun_path) + length + (abstract ? 0 : 1));
}

static bool path_argument(napi_env env, napi_value value, struct sockaddr_un *out, int *length) {
  /* Longer than any name, so that one that is too long is refused by number. */
  char path[TEXT_BYTES_MAX];
  if (!get_text(env, value, path, sizeof path)) return false;
  *length = address_of(path, out);
  return true;
}

/* datagramOpen(path): a descriptor that receives what is sent to the path, only from this user; or -errno */
static napi_value datagram_open(napi_env env, napi_callback_info info) {
  napi_value args[1];
  Instance *instance;
  struct sockaddr_un address;
  int length;
  if (!arguments_get(env, info, 1, args, &instance) || !path_argument(env, args[0], &address, &length))
    return NULL;
  if (length < 0) return make_number(env, length);
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return make_number(env, -errno);
  /* The mode of the descriptor becomes that of the name. */
  if (fchmod(fd, S_IRUSR | S_IWUSR) != 0 || bind(fd, (struct sockaddr *)&address, (socklen_t)length) != 0) {
    int error = errno;
    close(fd);
    return make_number(env, -error);
  }
  return make_number(env, fd);
}

/* datagramSend(path, text, descriptors): 0 or -errno. Never waits. The receiver gets duplicates. */
static napi_value datagram_send(napi_env env, napi_callback_info info) {
  napi_value args[3];
  Instance *instance;
  struct sockaddr_un address;
  int length;
  char text[TEXT_BYTES_MAX];
  if (!arguments_get(env, info, 3, args, &instance) || !path_argument(env, args[0], &address, &length) ||
      !get_text(env, args[1], text, sizeof text))
    return NULL;
  void *descriptors = NULL;
  size_t count = 0;
  napi_typedarray_type type;
  if (napi_get_typedarray_info(env, args[2], &type, &count, &descriptors, NULL, NULL) != napi_ok ||
      type != napi_int32_array) {
    napi_throw_type_error(env, "LAMINA_ADDON", "expected an Int32Array");
    return NULL;
  }
  if (length < 0) return make_number(env, length);
  if (count > DESCRIPTORS_MAX) return make_number(env, -E2BIG);
  union {
    char bytes[CMSG_SPACE(DESCRIPTORS_MAX * sizeof(int))];
    struct cmsghdr aligned;
  } control = {0};
  struct iovec part = {.iov_base = text, .iov_len = strlen(text)};
  struct msghdr message = {.msg_name = &address, .msg_namelen = (socklen_t)length, .msg_iov = &part, .msg_iovlen = 1};
  if (count > 0) {
    message.msg_control = control.bytes;
    message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(header), descriptors, count * sizeof(int));
  }
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return make_number(env, -errno);
  int result = sendmsg(fd, &message, MSG_NOSIGNAL) < 0 ? -errno : 0;
  close(fd);
  return make_number(env, result);
}

/* {text, descriptors}: descriptors that came are the caller's, close-on-exec. */
static napi_value message_object(napi_env env, const char *text, const int *descriptors, size_t count) {
  napi_value object, list;
  if (napi_create_object(env, &object) != napi_ok || napi_create_array_with_length(env, count, &list) != napi_ok)
    return NULL;
  for (size_t i = 0; i < count; i++)
    napi_set_element(env, list, (uint32_t)i, make_number(env, descriptors[i]));
  set_value(env, object, "text", make_text(env, text));
  set_value(env, object, "descriptors", list);
  return object;
}

/* datagramReceive(fd): what has come, or -errno (-EAGAIN: nothing). One that was cut off is refused whole. */
static napi_value datagram_receive(napi_env env, napi_callback_info info) {
  napi_value args[1];
  Instance *instance;
  int32_t fd;
  if (!arguments_get(env, info, 1, args, &instance) || !get_i32(env, args[0], &fd)) return NULL;
  char text[TEXT_BYTES_MAX + 1];
  union {
    char bytes[CMSG_SPACE(DESCRIPTORS_MAX * sizeof(int))];
    struct cmsghdr aligned;
  } control = {0};
  struct iovec part = {.iov_base = text, .iov_len = TEXT_BYTES_MAX};
  struct msghdr message = {
      .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
  ssize_t received = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
  if (received < 0) return make_number(env, -errno);
  text[received] = '\0';
  int descriptors[DESCRIPTORS_MAX];
  size_t count = 0;
  for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header != NULL; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    size_t bytes = header->cmsg_len - CMSG_LEN(0);
    if (bytes > sizeof descriptors - count * sizeof(int)) break;
    memcpy(descriptors + count, CMSG_DATA(header), bytes);
    count += bytes / sizeof(int);
  }
  if ((message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
    for (size_t i = 0; i < count; i++) close(descriptors[i]);
    return make_number(env, -EMSGSIZE);
  }
  return message_object(env, text, descriptors, count);
}

/*
 * descriptorAdopt(fd): of one that another process made: close-on-exec, and blocking, as our own are. A ring does
 * not wait for a descriptor that does not block. 0 or -errno.
 */
static napi_value descriptor_adopt(napi_env env, napi_callback_info info) {
  napi_value args[1];
  Instance *instance;
  int32_t fd;
  if (!arguments_get(env, info, 1, args, &instance) || !get_i32(env, args[0], &fd)) return NULL;
  int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
    return make_number(env, -errno);
  return make_number(env, 0);
}

const Method DATAGRAM_METHODS[] = {
    {"datagramOpen", datagram_open},       {"datagramSend", datagram_send},
    {"datagramReceive", datagram_receive}, {"descriptorAdopt", descriptor_adopt},
    {NULL, NULL},
};
