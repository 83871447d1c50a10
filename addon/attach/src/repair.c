#include "repair.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "links.h"
#include "session.h"
#include "state.h"

/* A lock that attach or detach has is not waited for long: the monitor looks again. */
#define LOCK_TIMEOUT_MS 1000
/* Beyond the kernel's own timeout, for its timer and the repeated request. */
#define SETTLE_MARGIN_MS 5000
/* How long a quiet moment is waited for before a size is changed. */
#define QUIET_TIMEOUT_MS 2000
#define QUIET_POLL_MS 5

static void save(const struct attachment *a) {
  struct failure why;
  int lock = state_lock(a->index, now_ms() + LOCK_TIMEOUT_MS);
  if (lock >= 0) state_update(a, &why);
  state_unlock(lock);
}

static void record_wait(struct attachment *a, const struct failure *why) {
  if (a->waits_since != 0 && strcmp(a->waits_for, why->cause) == 0) return;
  note("/dev/nbd%u: %s", a->index, why->cause);
  if (a->waits_since == 0) a->waits_since = wall_seconds();
  snprintf(a->waits_for, sizeof a->waits_for, "%.*s", WAITS_FOR_MAX - 1, why->cause);
  save(a);
}

static void record_whole(struct attachment *a) {
  if (a->waits_since == 0) return;
  note("/dev/nbd%u: connected again to %s, after %lld s", a->index, a->addresses[a->current].text,
       (long long)(wall_seconds() - a->waits_since));
  a->waits_since = 0;
  a->waits_for[0] = '\0';
  save(a);
}

/*
 * Sessions that may replace dead connections, all to one address. The set is empty on failure; of several reasons
 * that of a server which answered, but is not the right one, is told before that of one which did not.
 */
static bool open_replacements(struct attachment *a, unsigned alive, unsigned needed, struct session_set *set,
                              struct failure *why) {
  bool answered = false;
  why->cause[0] = '\0';
  for (unsigned i = 0; i < a->address_count; i++) {
    if (alive > 0 && i != a->current) continue;
    *set = (struct session_set){.count = 0};
    struct failure reason;
    bool open = sessions_extend(set, &a->addresses[i], a->export_name, 1, &reason);
    if (open && still_serves(a, &set->info, &reason)) {
      /* Fewer than needed are better than none: I/O goes on, and the rest is tried again. */
      sessions_extend(set, &a->addresses[i], a->export_name, needed, &reason);
      a->current = i;
      return true;
    }
    sessions_abandon(set);
    if (why->cause[0] == '\0' || (open && !answered)) *why = reason;
    answered |= open;
  }
  return false;
}

/*
 * Hands the sessions over. Which of them the kernel took shows when our own descriptors are closed. The file has
 * the new links before the kernel does: who dies in between leaves nothing that is not found again.
 */
static bool hand_over(struct attachment *a, struct session_set *set, struct failure *why) {
  struct nbd_netlink netlink;
  memmove(a->links + set->count, a->links, a->link_count * sizeof a->links[0]);
  for (unsigned i = 0; i < set->count; i++) a->links[i] = link_of(set->fds[i]);
  a->link_count += set->count;

  bool done = state_update(a, why) && netlink_open(&netlink, why);
  if (done) {
    done = netlink_reconnect(&netlink, a->index, a->backend, set->fds, set->count, why);
    netlink_close(&netlink);
  }
  if (done)
    sessions_close(set);
  else
    sessions_abandon(set);
  a->link_count = keep_established(a->links, a->link_count);
  if (a->link_count > a->connections) a->link_count = a->connections;
  return done && state_write(a, why);
}

static enum repair_result replace(struct attachment *a, unsigned alive, unsigned needed) {
  struct failure why;
  struct session_set set = {.count = 0};
  if (!open_replacements(a, alive, needed, &set, &why)) {
    record_wait(a, &why);
    return REPAIR_AGAIN;
  }
  int lock = state_lock(a->index, now_ms() + LOCK_TIMEOUT_MS);
  if (lock < 0) {
    sessions_abandon(&set);
    return REPAIR_AGAIN;
  }
  bool done = hand_over(a, &set, &why);
  state_unlock(lock);
  if (!done) record_wait(a, &why);
  if (!done || a->link_count < a->connections) return REPAIR_AGAIN;
  record_whole(a);
  return REPAIR_WHOLE;
}

static void wait_for_quiet(uint32_t index) {
  int64_t deadline = now_ms() + QUIET_TIMEOUT_MS;
  while (device_requests(index) > 0 && now_ms() < deadline) usleep(QUIET_POLL_MS * 1000);
}

static void grow(struct attachment *a, uint64_t size) {
  struct nbd_netlink netlink;
  struct failure why;
  int lock = state_lock(a->index, now_ms() + LOCK_TIMEOUT_MS);
  if (lock < 0) return;
  wait_for_quiet(a->index);
  bool whole = state_update(a, &why) && state_live_links(a) == a->connections;
  if (whole && netlink_open(&netlink, &why)) {
    if (netlink_resize(&netlink, a->index, a->backend, size, &why)) {
      note("/dev/nbd%u: grown from %llu to %llu bytes", a->index, (unsigned long long)a->size,
           (unsigned long long)size);
      a->size = size;
      state_write(a, &why);
      device_scan(a->index, now_ms() + QUIET_TIMEOUT_MS);
    } else {
      note("/dev/nbd%u: %s", a->index, why.cause);
    }
    netlink_close(&netlink);
  }
  state_unlock(lock);
}

static void follow_size(struct attachment *a) {
  struct export_info info;
  struct failure why;
  if (!session_ask(&a->addresses[a->current], a->export_name, &info, &why)) return;
  uint64_t size = info.size - info.size % a->block_size;
  if (size > a->size) grow(a, size);
}

static enum repair_result forget(uint32_t index) {
  int lock = state_lock(index, now_ms());
  struct attachment a;
  if (lock < 0) return REPAIR_AGAIN;
  bool gone = !state_read(index, &a) || !state_is_live(&a);
  if (gone) state_remove(index);
  state_unlock(lock);
  return gone ? REPAIR_GONE : REPAIR_AGAIN;
}

enum repair_result repair(const struct repair_task *task) {
  struct attachment a;
  if (!state_read(task->index, &a) || !state_is_live(&a)) return forget(task->index);
  unsigned alive = state_live_links(&a);
  /*
   * Whether a unix socket is dead only the kernel's driver knows: it is given a whole set and takes what it
   * needs. There is one address, so there is one owner.
   */
  if (state_is_local(&a) && task->suspect) return replace(&a, 0, a.connections);
  if (alive < a.connections) return replace(&a, alive, a.connections - alive);
  record_whole(&a);
  if (task->settled) follow_size(&a);
  return REPAIR_WHOLE;
}

int64_t settle_ms(uint32_t index) {
  struct attachment a;
  return state_read(index, &a) ? (int64_t)a.timeout_s * 1000 + SETTLE_MARGIN_MS : INT64_MAX / 2;
}
