/*
 * sd_notify(3) without libsystemd: one datagram to a unix socket, which node:net cannot send.
 */
#include "addon.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { STATE_BYTES_MAX = 4096 };

/* notifySend(path, state): 0 or -errno. A path that begins with '@' names an abstract socket. */
static napi_value notify_send(napi_env env, napi_callback_info info) {
  napi_value args[2];
  Instance *instance;
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  char state[STATE_BYTES_MAX];
  if (!arguments_get(env, info, 2, args, &instance) ||
      !get_text(env, args[0], address.sun_path, sizeof address.sun_path) ||
      !get_text(env, args[1], state, sizeof state))
    return NULL;
  size_t path = strlen(address.sun_path);
  if (path < 2) return make_number(env, -EINVAL);
  bool abstract = address.sun_path[0] == '@';
  if (abstract) address.sun_path[0] = '\0';
  /* An abstract name has no terminator; a path is given with its own. */
  socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path + (abstract ? 0 : 1));
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return make_number(env, -errno);
  ssize_t sent = sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&address, length);
  int result = sent < 0 ? -errno : 0;
  close(fd);
  return make_number(env, result);
}

const Method NOTIFY_METHODS[] = {{"notifySend", notify_send}, {NULL, NULL}};
