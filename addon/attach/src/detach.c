/*
 * detach: what is written must have arrived before the device goes away; --force does without that and always
 * works. It never waits for a server that does not answer.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "state.h"

#define LOCK_TIMEOUT_MS 10000
/* --force goes on without the lock: its holder may be a monitor that the kernel does not let go. */
#define FORCE_LOCK_TIMEOUT_MS 2000
/* Without a server: what has not been found clean by then waits for the server. */
#define CLEAN_TIMEOUT_MS 1000
/* After DISCONNECT the driver lets go at once, unless someone has the device open. */
#define FREE_TIMEOUT_MS 5000

struct target {
  uint32_t index;
  /* It is one of ours; otherwise only the number is known. */
  bool is_ours;
  struct attachment attachment;
};

static bool find_target(const char *word, struct target *out, struct failure *why) {
  if (device_index(word, &out->index)) {
    out->is_ours = state_read(out->index, &out->attachment);
    if (device_is_connected(out->index) || out->is_ours) return true;
    return fail(why, "see what is: lamina-attach list", "nothing is attached as /dev/nbd%u", out->index);
  }
  uint32_t indices[ATTACHMENTS_MAX];
  unsigned count = state_list(indices);
  for (unsigned i = 0; i < count; i++) {
    if (!state_read(indices[i], &out->attachment) || strcmp(out->attachment.uri, word) != 0) continue;
    out->index = indices[i];
    return out->is_ours = true;
  }
  return fail(why, "see what is: lamina-attach list", "'%s' is not attached", word);
}

/* Writes out what the page cache holds. The device must not be in use, and its server must answer. */
static bool write_out(uint32_t index, struct failure *why) {
  char path[32];
  snprintf(path, sizeof path, "/dev/nbd%u", index);
  int fd = open(path, O_RDONLY | O_EXCL | O_CLOEXEC);
  if (fd < 0 && errno == EBUSY)
    return fail(why, "stop what uses it first, or add --force", "%s is in use", path);
  if (fd < 0)
    return fail(why, "add --force to give up what was not written", "cannot open %s: %s", path,
                strerror(errno));
  bool written = fsync(fd) == 0;
  int error = errno;
  close(fd);
  return written || fail(why, "add --force to give up what was not written", "cannot write out %s: %s", path,
                         strerror(error));
}

static bool may_detach(struct target *target, struct failure *why) {
  uint32_t index = target->index;
  char what[256];
  if (device_in_use(index, what, sizeof what)) {
    return fail(why, "stop that first, or add --force, which makes its I/O fail", "/dev/nbd%u is %s", index,
                what);
  }
  int opener = device_opener(index);
  if (opener != 0) {
    return fail(why, "end it first, or add --force, which makes its I/O fail",
                "/dev/nbd%u is open in process %d", index, opener);
  }
  if (target->is_ours && state_live_links(&target->attachment) > 0) return write_out(index, why);
  if (device_is_clean(index, now_ms() + CLEAN_TIMEOUT_MS)) return true;
  return fail(why, "bring the server back, or add --force to give them up",
              "/dev/nbd%u has no connection, and writes wait for one", index);
}

static bool disconnect(struct target *target, struct failure *why) {
  struct nbd_netlink netlink;
  if (!netlink_open(&netlink, why)) return false;
  bool done = netlink_disconnect(&netlink, target->index, why);
  netlink_close(&netlink);
  return done;
}

static bool detach(struct target *target, bool force, struct failure *why) {
  if (!force && !may_detach(target, why)) return false;
  if (device_is_connected(target->index) && !disconnect(target, why)) return false;
  if (target->is_ours) state_remove(target->index);
  if (!device_wait_until_free(target->index, now_ms() + FREE_TIMEOUT_MS)) {
    note("warning: /dev/nbd%u is disconnected, but someone has it open; it is free when that ends",
         target->index);
  }
  return true;
}

int command_detach(int argc, char **argv) {
  struct failure why;
  const char *word = NULL;
  bool force = false;
  for (int i = 0; i < argc; i++) {
    if (strcmp(argv[i], "--force") == 0)
      force = true;
    else if (word == NULL && argv[i][0] != '-')
      word = argv[i];
    else
      word = "";
  }
  static struct target target;
  if (word == NULL || word[0] == '\0') {
    fail_usage(&why, "write: lamina-attach detach /dev/nbdN|URI [--force]", "detach takes one device or URI");
    return report(&why);
  }
  if (geteuid() != 0) {
    fail(&why, "run it as root", "only root may detach a device");
    return report(&why);
  }
  if (!find_target(word, &target, &why)) return report(&why);
  if (!target.is_ours && !force) {
    fail(&why, "use the tool that attached it, or add --force",
         "/dev/nbd%u was not attached by lamina-attach", target.index);
    return report(&why);
  }
  int lock = state_lock(target.index, now_ms() + (force ? FORCE_LOCK_TIMEOUT_MS : LOCK_TIMEOUT_MS));
  if (lock < 0 && !force) {
    fail(&why, "try again, or add --force", "/dev/nbd%u is being changed by another process", target.index);
    return report(&why);
  }
  bool done = detach(&target, force, &why);
  state_unlock(lock);
  return done ? EXIT_OK : report(&why);
}
