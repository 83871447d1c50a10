#include "transport.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* An idle connection whose peer is gone is noticed after IDLE + INTERVAL × COUNT seconds. */
#define KEEPALIVE_IDLE_S 10
#define KEEPALIVE_INTERVAL_S 5
#define KEEPALIVE_COUNT 3

static const char SERVER_UP[] = "check that the server runs and can be reached from here";

int64_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t wall_seconds(void) { return (int64_t)time(NULL); }

union socket_address {
  struct sockaddr any;
  struct sockaddr_in v4;
  struct sockaddr_in6 v6;
  struct sockaddr_un local;
};

/* "10.0.0.1:10809", "[fe80::1%eth0]:10809" or "unix:/path". */
static bool parse_address(const char *text, union socket_address *out, socklen_t *length) {
  memset(out, 0, sizeof *out);
  if (strncmp(text, "unix:", 5) == 0) {
    size_t path = strlen(text + 5);
    if (path == 0 || path >= sizeof out->local.sun_path) return false;
    out->local.sun_family = AF_UNIX;
    memcpy(out->local.sun_path, text + 5, path + 1);
    *length = sizeof out->local;
    return true;
  }

  const char *colon = strrchr(text, ':');
  if (colon == NULL) return false;
  char *end;
  unsigned long port = strtoul(colon + 1, &end, 10);
  if (*end != '\0' || port == 0 || port > 65535) return false;

  char host[ADDRESS_TEXT_MAX];
  size_t host_length = (size_t)(colon - text);
  if (host_length == 0 || host_length >= sizeof host) return false;
  memcpy(host, text, host_length);
  host[host_length] = '\0';

  if (host[0] != '[') {
    out->v4.sin_family = AF_INET;
    out->v4.sin_port = htons((uint16_t)port);
    *length = sizeof out->v4;
    return inet_pton(AF_INET, host, &out->v4.sin_addr) == 1;
  }
  if (host[host_length - 1] != ']') return false;
  host[host_length - 1] = '\0';
  char *scope = strchr(host, '%');
  if (scope != NULL) {
    *scope++ = '\0';
    out->v6.sin6_scope_id = if_nametoindex(scope);
  }
  out->v6.sin6_family = AF_INET6;
  out->v6.sin6_port = htons((uint16_t)port);
  *length = sizeof out->v6;
  return inet_pton(AF_INET6, host + 1, &out->v6.sin6_addr) == 1;
}

/* Waits for `events`. False, with errno, when the deadline has passed. */
static bool wait_for(int fd, short events, int64_t deadline) {
  for (;;) {
    int64_t left = deadline - now_ms();
    if (left <= 0) {
      errno = ETIMEDOUT;
      return false;
    }
    struct pollfd item = {.fd = fd, .events = events};
    int ready = poll(&item, 1, left > INT32_MAX ? INT32_MAX : (int)left);
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return false;
  }
}

static bool finish_connect(int fd, int64_t deadline) {
  if (!wait_for(fd, POLLOUT, deadline)) return false;
  int error = 0;
  socklen_t length = sizeof error;
  if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0) return false;
  errno = error;
  return error == 0;
}

int connect_to(const struct address *address, int64_t deadline, struct failure *why) {
  union socket_address to;
  socklen_t length;
  if (!parse_address(address->text, &to, &length)) {
    fail(why, "use a numeric address and a port", "'%s' is not an address", address->text);
    return -1;
  }
  int fd = socket(to.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    fail(why, NULL, "cannot make a socket: %s", strerror(errno));
    return -1;
  }
  bool connected = connect(fd, &to.any, length) == 0;
  if (!connected && (errno == EINPROGRESS || errno == EINTR)) connected = finish_connect(fd, deadline);
  if (!connected) {
    fail(why, SERVER_UP, "cannot connect to %s: %s", address->text, strerror(errno));
    close(fd);
    return -1;
  }
  if (to.any.sa_family != AF_UNIX) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
  return fd;
}

bool read_exactly(int fd, void *to, size_t length, int64_t deadline, struct failure *why) {
  uint8_t *at = to;
  while (length > 0) {
    ssize_t got = recv(fd, at, length, 0);
    if (got > 0) {
      at += got;
      length -= (size_t)got;
    } else if (got == 0) {
      return fail(why, SERVER_UP, "the server closed the connection during the handshake");
    } else if (errno == EAGAIN) {
      if (!wait_for(fd, POLLIN, deadline)) {
        return fail(why, SERVER_UP, "the server did not answer in time during the handshake");
      }
    } else if (errno != EINTR) {
      return fail(why, SERVER_UP, "the connection broke during the handshake: %s", strerror(errno));
    }
  }
  return true;
}

bool write_all(int fd, const void *from, size_t length, int64_t deadline, struct failure *why) {
  const uint8_t *at = from;
  while (length > 0) {
    ssize_t put = send(fd, at, length, MSG_NOSIGNAL);
    if (put >= 0) {
      at += put;
      length -= (size_t)put;
    } else if (errno == EAGAIN) {
      if (!wait_for(fd, POLLOUT, deadline)) {
        return fail(why, SERVER_UP, "the server did not take the handshake in time");
      }
    } else if (errno != EINTR) {
      return fail(why, SERVER_UP, "the connection broke during the handshake: %s", strerror(errno));
    }
  }
  return true;
}

void prepare_for_kernel(int fd) {
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
  /*
   * No TCP_USER_TIMEOUT: it would also end a connection whose server holds back for a while. Requests have
   * the driver's own timer; only idle connections need help.
   */
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &(int){1}, sizeof(int));
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &(int){KEEPALIVE_IDLE_S}, sizeof(int));
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &(int){KEEPALIVE_INTERVAL_S}, sizeof(int));
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &(int){KEEPALIVE_COUNT}, sizeof(int));
}
