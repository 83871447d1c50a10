/*
 * Bells between threads: an eventfd that one thread writes and another one's ring polls. The count is never
 * read: each write wakes the poll anew, and 2^64 - 2 of them do not happen.
 */
#include "addon.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* bellCreate(): a descriptor, or -errno. It is closed like a file. */
static napi_value bell_create(napi_env env, napi_callback_info info) {
  Instance *instance;
  if (!arguments_get(env, info, 0, NULL, &instance)) return NULL;
  int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  return make_number(env, fd < 0 ? -errno : fd);
}

/* bellRing(fd): 0 or -errno */
static napi_value bell_ring(napi_env env, napi_callback_info info) {
  napi_value args[1];
  Instance *instance;
  int32_t fd;
  if (!arguments_get(env, info, 1, args, &instance) || !get_i32(env, args[0], &fd)) return NULL;
  const uint64_t one = 1;
  ssize_t written = write(fd, &one, sizeof one);
  return make_number(env, written < 0 ? -errno : 0);
}

const Method BELL_METHODS[] = {{"bellCreate", bell_create}, {"bellRing", bell_ring}, {NULL, NULL}};
