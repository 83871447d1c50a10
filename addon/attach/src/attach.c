/*
 * attach: sessions first, then a device for them. `probe` does the first half and says what it found.
 *
 *  1. A volume that is attached already is not attached again: two page caches over one volume tear it apart.
 *  2. All connections go to the first address that answers for the volume.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "commands.h"
#include "json.h"
#include "links.h"
#include "nbd-protocol.h"
#include "options.h"
#include "session.h"
#include "state.h"

/* How long another attach or detach may take before this one gives up. */
#define LOCK_TIMEOUT_MS 60000
/* For reading the partition table. */
#define SCAN_TIMEOUT_MS 5000
/* Between two attempts while --wait has not run out. */
#define WAIT_POLL_MS 500

static bool open_sessions_at(const struct options *options, unsigned address, struct session_set *set,
                             struct failure *why) {
  const struct address *to = &options->addresses[address];
  const char *name = options->uri.export_name;
  if (!sessions_extend(set, to, name, 1, why)) return false;
  unsigned count = set->info.flags & NBD_FLAG_CAN_MULTI_CONN ? options->connections : 1;
  if (sessions_extend(set, to, name, count, why)) return true;
  sessions_abandon(set);
  return false;
}

static bool open_sessions(const struct options *options, unsigned *address, struct session_set *set,
                          struct failure *why) {
  int64_t deadline = now_ms() + (int64_t)options->wait_s * 1000;
  for (;;) {
    for (unsigned i = 0; i < options->address_count; i++) {
      *set = (struct session_set){.count = 0};
      *address = i;
      if (open_sessions_at(options, i, set, why)) return true;
    }
    if (now_ms() >= deadline) return false;
    usleep(WAIT_POLL_MS * 1000);
  }
}

static void warn_about(const struct options *options, const struct session_set *set) {
  if (set->count < options->connections && options->connections > 1) {
    note(
        "warning: the server takes one connection only; a read that is cut by its end may fail on older "
        "kernels");
  }
  if (!(set->info.flags & NBD_FLAG_SEND_FLUSH)) {
    note("warning: the server offers no FLUSH: fsync on this device will not make anything durable");
  }
}

/* Whether the volume is attached already. On success `found` has its device. */
static bool find_attached(const struct options *options, struct attachment *found) {
  uint32_t indices[ATTACHMENTS_MAX];
  unsigned count = state_list(indices);
  for (unsigned i = 0; i < count; i++) {
    if (state_read(indices[i], found) && strcmp(found->uri, options->uri_text) == 0 && state_is_live(found))
      return true;
  }
  return false;
}

static void print_device(uint32_t index, const struct options *options) {
  printf(options->json ? "{\"device\": \"/dev/nbd%u\"}\n" : "/dev/nbd%u\n", index);
}

static bool same_as_attached(const struct options *options, const struct attachment *found,
                             struct failure *why) {
  if (options->has_device && options->device != found->index) {
    return fail(why, "use that device, or detach it first", "%s is attached already, as /dev/nbd%u",
                options->uri_text, found->index);
  }
  if (options->read_only && !(found->flags & NBD_FLAG_READ_ONLY)) {
    return fail(why, "detach it first", "%s is attached already as /dev/nbd%u, and writable",
                options->uri_text, found->index);
  }
  print_device(found->index, options);
  return true;
}

static void describe(const struct options *options, const struct session_set *set, unsigned address,
                     uint32_t block_size, struct attachment *out) {
  memset(out, 0, sizeof *out);
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  out->id = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
  snprintf(out->uri, sizeof out->uri, "%s", options->uri_text);
  snprintf(out->backend, sizeof out->backend, "lamina:%s", options->uri_text);
  snprintf(out->export_name, sizeof out->export_name, "%s", options->uri.export_name);
  memcpy(out->addresses, options->addresses, sizeof out->addresses);
  out->address_count = options->address_count;
  out->current = address;
  out->connections = set->count;
  for (unsigned i = 0; i < set->count; i++) out->links[i] = link_of(set->fds[i]);
  out->link_count = set->count;
  out->size = set->info.size;
  out->block_size = block_size;
  out->flags = flags_for_kernel(&set->info, options->read_only);
  out->timeout_s = options->timeout_s;
  out->dead_timeout_s = options->dead_timeout_s;
  out->attached_at = wall_seconds();
}

/* Gives the sessions to one device. The caller holds its lock. */
static bool connect_device(struct nbd_netlink *netlink, struct attachment *attachment,
                           const struct session_set *set, bool *busy, struct failure *why) {
  struct nbd_connect request = {.index = attachment->index,
                                .size = attachment->size,
                                .block_size = attachment->block_size,
                                .server_flags = attachment->flags,
                                .timeout_s = attachment->timeout_s,
                                .dead_timeout_s = attachment->dead_timeout_s,
                                .backend = attachment->backend,
                                .sockets = set->fds,
                                .socket_count = set->count};
  if (!state_write(attachment, why)) return false;
  if (netlink_connect(netlink, &request, busy, why)) return true;
  state_remove(attachment->index);
  return false;
}

static bool try_device(struct nbd_netlink *netlink, struct attachment *attachment, uint32_t index,
                       const struct session_set *set, bool *busy, struct failure *why) {
  *busy = true;
  if (device_is_connected(index))
    return fail(why, "choose another device, or none", "/dev/nbd%u is in use", index);
  int lock = state_lock(index, now_ms());
  if (lock < 0) return fail(why, "try again", "/dev/nbd%u is being attached or detached", index);
  attachment->index = index;
  bool done = connect_device(netlink, attachment, set, busy, why);
  state_unlock(lock);
  return done;
}

/* The device that was asked for, or the first that nobody uses; the kernel makes new ones when all are taken. */
static bool find_device(struct nbd_netlink *netlink, const struct options *options,
                        struct attachment *attachment, const struct session_set *set, struct failure *why) {
  bool busy;
  if (options->has_device) return try_device(netlink, attachment, options->device, set, &busy, why);
  for (uint32_t index = 0; index < ATTACHMENTS_MAX; index++) {
    if (try_device(netlink, attachment, index, set, &busy, why)) return true;
    if (!busy) return false;
  }
  return false;
}

static bool attach_sessions(const struct options *options, const struct session_set *set, unsigned address,
                            struct failure *why) {
  uint32_t block_size;
  struct nbd_netlink netlink;
  struct attachment attachment;
  if (!choose_block_size(&set->info, options->block_size, &block_size, why)) return false;
  if (!netlink_open(&netlink, why)) return false;

  int lock = attach_lock(now_ms() + LOCK_TIMEOUT_MS);
  bool done = lock >= 0 || fail(why, "try again", "another attach does not end");
  if (done && find_attached(options, &attachment)) {
    done = fail(why, "use that device", "%s has just been attached as /dev/nbd%u", options->uri_text,
                attachment.index);
  } else if (done) {
    describe(options, set, address, block_size, &attachment);
    done = find_device(&netlink, options, &attachment, set, why);
  }
  state_unlock(lock);
  netlink_close(&netlink);
  if (!done) return false;

  device_set_request_max(attachment.index, request_max_kib(&set->info));
  device_scan(attachment.index, now_ms() + SCAN_TIMEOUT_MS);
  if (!monitor_runs()) {
    note("warning: no monitor runs, so /dev/nbd%u will not reconnect; start it with: lamina-attach monitor",
         attachment.index);
  }
  print_device(attachment.index, options);
  return true;
}

int command_attach(int argc, char **argv) {
  struct failure why;
  struct options options;
  struct attachment attached;
  struct session_set set;
  unsigned address;
  if (!parse_options(argc, argv, &options, &why) || !state_directory(true, &why)) return report(&why);
  if (find_attached(&options, &attached))
    return same_as_attached(&options, &attached, &why) ? EXIT_OK : report(&why);
  if (!open_sessions(&options, &address, &set, &why)) return report(&why);
  warn_about(&options, &set);
  if (!attach_sessions(&options, &set, address, &why)) {
    sessions_abandon(&set);
    return report(&why);
  }
  sessions_close(&set);
  return EXIT_OK;
}

static void print_probe(const struct options *options, const struct session_set *set, unsigned address,
                        uint32_t block_size) {
  const struct export_info *info = &set->info;
  bool read_only = (info->flags & NBD_FLAG_READ_ONLY) != 0;
  if (!options->json) {
    printf("%s at %s: %" PRIu64 " bytes%s, blocks of %u, %u connection%s\n", options->uri_text,
           options->addresses[address].text, info->size, read_only ? " (read-only)" : "", block_size,
           set->count, set->count == 1 ? "" : "s");
    return;
  }
  printf("{\"uri\": ");
  json_write_string(stdout, options->uri_text);
  printf(", \"address\": ");
  json_write_string(stdout, options->addresses[address].text);
  printf(", \"size\": %" PRIu64 ", \"flags\": %u, \"readOnly\": %s, \"connections\": %u, \"blockSize\": %u",
         info->size, info->flags, read_only ? "true" : "false", set->count, block_size);
  printf(", \"blockMin\": %u, \"blockPreferred\": %u, \"payloadMax\": %u, \"requestMaxKiB\": %u}\n",
         info->block_min, info->block_preferred, info->payload_max, request_max_kib(info));
}

int command_probe(int argc, char **argv) {
  struct failure why;
  struct options options;
  struct session_set set;
  unsigned address;
  uint32_t block_size;
  if (!parse_options(argc, argv, &options, &why)) return report(&why);
  if (!open_sessions(&options, &address, &set, &why)) return report(&why);
  bool usable = choose_block_size(&set.info, options.block_size, &block_size, &why);
  if (usable) print_probe(&options, &set, address, block_size);
  sessions_abandon(&set);
  return usable ? EXIT_OK : report(&why);
}
