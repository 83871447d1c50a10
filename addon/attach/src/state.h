/*
 * What is known about an attached device, one file each: /run/lamina/attach/nbdN.json. The directory lives as
 * long as the devices do: until the machine restarts.
 *
 *  1. Who changes a device or its file holds the device's lock (nbdN.lock). Only `detach --force` goes on
 *     without it, because it must always work.
 *  2. A file is replaced whole; a reader never sees half of one.
 *  3. The file is written before the device is attached: no device of ours is ever without one.
 */
#ifndef LAMINA_ATTACH_STATE_H
#define LAMINA_ATTACH_STATE_H

#include <stdint.h>

#include "device.h"
#include "nbd-netlink.h"
#include "uri.h"

#define WAITS_FOR_MAX 256
#define LINKS_MAX (2 * CONNECTIONS_MAX)

struct attachment {
  uint32_t index;
  /* Tells this attachment from an earlier or later one of the same volume as the same device. */
  uint64_t id;
  char uri[URI_MAX];
  /* What the kernel knows it by; RECONFIGURE of another device with our number is refused by it. */
  char backend[BACKEND_MAX];
  char export_name[EXPORT_NAME_MAX + 1];
  struct address addresses[ADDRESSES_MAX];
  unsigned address_count;
  /* The address that all live links go to. */
  unsigned current;
  unsigned connections;
  /* As links.h knows them. While sockets are being replaced, the old and the new. */
  uint64_t links[LINKS_MAX];
  unsigned link_count;
  uint64_t size;
  uint32_t block_size;
  /* Transmission flags that the kernel relies on. */
  uint16_t flags;
  uint32_t timeout_s;
  uint32_t dead_timeout_s;
  int64_t attached_at;
  /* Seconds since 1970; 0 while all is well. */
  int64_t waits_since;
  char waits_for[WAITS_FOR_MAX];
};

/* The directory exists and only root can write to it. `create`: make it if it is not there. */
bool state_directory(bool create, struct failure *why);
const char *state_path(void);

bool state_write(const struct attachment *attachment, struct failure *why);
/* False, without a failure, when there is no such file; malformed files are as good as none. */
bool state_read(uint32_t index, struct attachment *out);
void state_remove(uint32_t index);

/* The devices that have a file, in order of their numbers; `indices` has room for ATTACHMENTS_MAX. */
#define ATTACHMENTS_MAX 1024
unsigned state_list(uint32_t *indices);

/* The kernel's side of it is still there, and is ours. */
bool state_is_live(const struct attachment *attachment);

/*
 * Writes what was found out about an attachment, unless it is over. For who looked at it without the lock and
 * has the lock now.
 */
bool state_update(const struct attachment *attachment, struct failure *why);

/* Its only address is a unix socket. */
bool state_is_local(const struct attachment *attachment);

/* Drops the links that do not stand and returns the number of those that do, at most `connections`. */
unsigned state_live_links(struct attachment *attachment);

/* A descriptor that holds the device's lock, or −1 when another process has it at `deadline`. */
int state_lock(uint32_t index, int64_t deadline);
/* One `attach` at a time looks for what is attached already and chooses a device. */
int attach_lock(int64_t deadline);
/* The monitor holds its own lock while it runs. */
int monitor_lock(int64_t deadline);
bool monitor_runs(void);
void state_unlock(int fd);

#endif
