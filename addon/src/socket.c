/*
 * Sockets: everything around a stream except its bytes, which go through the ring.
 */
#include "addon.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

typedef union {
  struct sockaddr any;
  struct sockaddr_in v4;
  struct sockaddr_in6 v6;
  struct sockaddr_un local;
  struct sockaddr_storage storage;
} Address;

/* Longer than any address; what is too long for one is refused by number, not by exception. */
enum { HOST_BYTES_MAX = 4096 };

/*
 * A numeric host, or with port < 0 the path of a unix socket, where a first '@' stands for the zero byte of an
 * abstract one (unix(7)), as elsewhere on Linux. Length of the address, or -errno.
 */
static int address_parse(const char *host, int port, Address *out) {
  memset(out, 0, sizeof *out);
  if (port < 0) {
    size_t length = strlen(host);
    if (length == 0 || length >= sizeof out->local.sun_path) return -ENAMETOOLONG;
    out->local.sun_family = AF_UNIX;
    memcpy(out->local.sun_path, host, length + 1);
    bool is_abstract = host[0] == '@';
    if (is_abstract) out->local.sun_path[0] = 0;
    return (int)(offsetof(struct sockaddr_un, sun_path) + length + (is_abstract ? 0 : 1));
  }
  if (inet_pton(AF_INET, host, &out->v4.sin_addr) == 1) {
    out->v4.sin_family = AF_INET;
    out->v4.sin_port = htons((uint16_t)port);
    return sizeof out->v4;
  }
  if (inet_pton(AF_INET6, host, &out->v6.sin6_addr) == 1) {
    out->v6.sin6_family = AF_INET6;
    out->v6.sin6_port = htons((uint16_t)port);
    return sizeof out->v6;
  }
  return -EINVAL;
}

static napi_value address_object(napi_env env, const Address *address) {
  char host[INET6_ADDRSTRLEN] = "", path[sizeof address->local.sun_path + 1] = "";
  int port = 0;
  const char *family = "tcp";
  napi_value object;
  if (napi_create_object(env, &object) != napi_ok) return NULL;
  if (address->any.sa_family == AF_INET) {
    inet_ntop(AF_INET, &address->v4.sin_addr, host, sizeof host);
    port = ntohs(address->v4.sin_port);
  } else if (address->any.sa_family == AF_INET6) {
    const struct in6_addr *v6 = &address->v6.sin6_addr;
    if (IN6_IS_ADDR_V4MAPPED(v6)) inet_ntop(AF_INET, &v6->s6_addr[12], host, sizeof host);
    else inet_ntop(AF_INET6, v6, host, sizeof host);
    port = ntohs(address->v6.sin6_port);
  } else {
    family = "unix";
    memcpy(path, address->local.sun_path, sizeof address->local.sun_path);
    if (path[0] == 0 && path[1] != 0) path[0] = '@';
  }
  set_value(env, object, "family", make_text(env, family));
  set_value(env, object, "host", make_text(env, host));
  set_value(env, object, "path", make_text(env, path));
  set_number(env, object, "port", port);
  return object;
}

static bool address_arguments(napi_env env, napi_value host, napi_value port, Address *out, int *length) {
  char text[HOST_BYTES_MAX];
  int32_t number;
  if (!get_text(env, host, text, sizeof text) || !get_i32(env, port, &number)) return false;
  *length = address_parse(text, number, out);
  return true;
}

/* socketListen(host, port, backlog): a descriptor or -errno. Port -1: host is the path of a unix socket. */
static napi_value socket_listen(napi_env env, napi_callback_info info) {
  napi_value args[3];
  Instance *instance;
  Address address;
  int length;
  int32_t backlog;
  if (!arguments_get(env, info, 3, args, &instance) ||
      !address_arguments(env, args[0], args[1], &address, &length) || !get_i32(env, args[2], &backlog))
    return NULL;
  if (length < 0) return make_number(env, length);
  int fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return make_number(env, -errno);
  const int on = 1;
  if (address.any.sa_family != AF_UNIX) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(fd, &address.any, (socklen_t)length) != 0 || listen(fd, backlog) != 0) {
    int error = errno;
    close(fd);
    return make_number(env, -error);
  }
  return make_number(env, fd);
}

/* socketOpen(host, port): an unconnected descriptor of the address's family, or -errno */
static napi_value socket_open(napi_env env, napi_callback_info info) {
  napi_value args[2];
  Instance *instance;
  Address address;
  int length;
  if (!arguments_get(env, info, 2, args, &instance) || !address_arguments(env, args[0], args[1], &address, &length))
    return NULL;
  if (length < 0) return make_number(env, length);
  int fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  return make_number(env, fd < 0 ? -errno : fd);
}

/* socketAddress(host, port, out): writes the sockaddr to `out`; its length or -errno */
static napi_value socket_address(napi_env env, napi_callback_info info) {
  napi_value args[3];
  Instance *instance;
  Address address;
  int length;
  if (!arguments_get(env, info, 3, args, &instance) || !address_arguments(env, args[0], args[1], &address, &length))
    return NULL;
  void *out = NULL;
  size_t capacity = 0;
  if (napi_get_typedarray_info(env, args[2], NULL, &capacity, &out, NULL, NULL) != napi_ok) {
    napi_throw_type_error(env, "LAMINA_ADDON", "expected bytes");
    return NULL;
  }
  if (length > 0 && (size_t)length > capacity) return make_number(env, -EINVAL);
  if (length > 0) memcpy(out, &address, (size_t)length);
  return make_number(env, length);
}

typedef int (*NameFunction)(int, struct sockaddr *, socklen_t *);

static napi_value socket_name_by(napi_env env, napi_callback_info info, NameFunction name) {
  napi_value args[1];
  Instance *instance;
  int32_t fd;
  if (!arguments_get(env, info, 1, args, &instance) || !get_i32(env, args[0], &fd)) return NULL;
  Address address = {0};
  socklen_t length = sizeof address.storage;
  if (name(fd, &address.any, &length) != 0) return make_number(env, -errno);
  return address_object(env, &address);
}

/* socketName(fd): {family, host, path, port} of this end, or -errno */
static napi_value socket_name(napi_env env, napi_callback_info info) {
  return socket_name_by(env, info, getsockname);
}

/* socketPeer(fd): the same of the other end */
static napi_value socket_peer(napi_env env, napi_callback_info info) {
  return socket_name_by(env, info, getpeername);
}

/* socketOwner(fd): effective user of who listened, or connected, at the other end of a unix socket, or -errno */
static napi_value socket_owner(napi_env env, napi_callback_info info) {
  napi_value args[1];
  Instance *instance;
  int32_t fd;
  if (!arguments_get(env, info, 1, args, &instance) || !get_i32(env, args[0], &fd)) return NULL;
  struct ucred owner;
  socklen_t length = sizeof owner;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &owner, &length) != 0) return make_number(env, -errno);
  return make_number(env, owner.uid);
}

/* socketOption(fd, level, name, value): setsockopt(2) of an int; 0 or -errno */
static napi_value socket_option(napi_env env, napi_callback_info info) {
  napi_value args[4];
  Instance *instance;
  int32_t fd, level, name, value;
  if (!arguments_get(env, info, 4, args, &instance) || !get_i32(env, args[0], &fd) ||
      !get_i32(env, args[1], &level) || !get_i32(env, args[2], &name) || !get_i32(env, args[3], &value))
    return NULL;
  return make_number(env, setsockopt(fd, level, name, &value, sizeof value) == 0 ? 0 : -errno);
}

/* socketShutdown(fd, how): 0 or -errno */
static napi_value socket_shutdown(napi_env env, napi_callback_info info) {
  napi_value args[2];
  Instance *instance;
  int32_t fd, how;
  if (!arguments_get(env, info, 2, args, &instance) || !get_i32(env, args[0], &fd) || !get_i32(env, args[1], &how))
    return NULL;
  return make_number(env, shutdown(fd, how) == 0 ? 0 : -errno);
}

/* socketGone(fd): 1 when the peer has hung up or ended its side, whatever is still unread; 0 or -errno */
static napi_value socket_gone(napi_env env, napi_callback_info info) {
  napi_value args[1];
  Instance *instance;
  int32_t fd;
  if (!arguments_get(env, info, 1, args, &instance) || !get_i32(env, args[0], &fd)) return NULL;
  struct pollfd state = {.fd = fd, .events = POLLRDHUP};
  if (poll(&state, 1, 0) < 0) return make_number(env, -errno);
  return make_number(env, (state.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0);
}

const Method SOCKET_METHODS[] = {
    {"socketListen", socket_listen}, {"socketOpen", socket_open},     {"socketAddress", socket_address},
    {"socketName", socket_name},     {"socketPeer", socket_peer},     {"socketOwner", socket_owner},
    {"socketOption", socket_option}, {"socketShutdown", socket_shutdown}, {"socketGone", socket_gone},
    {NULL, NULL},
};
