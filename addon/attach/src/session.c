#include "session.h"

#include <string.h>
#include <unistd.h>

#include "nbd-protocol.h"

/* The kernel's logical block is a page at most, and a sector at least. */
#define BLOCK_SIZE_MAX 4096u
#define SECTOR_SIZE 512u
/*
 * The driver's own limit is 128 KiB on older kernels; large sequential requests cost less per byte. Beyond this
 * nothing is gained, and a request holds its connection for longer.
 */
#define REQUEST_MAX_KIB 1024u

#define FLAGS_OF_KERNEL                                                                                      \
  (NBD_FLAG_HAS_FLAGS | NBD_FLAG_READ_ONLY | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_ROTATIONAL | \
   NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_CAN_MULTI_CONN)

int session_open(const struct address *address, const char *export_name, enum handshake_mode mode,
                 struct export_info *info, struct failure *why) {
  int64_t start = now_ms();
  int fd = connect_to(address, start + CONNECT_TIMEOUT_MS, why);
  if (fd < 0) return -1;
  if (handshake(fd, export_name, mode, start + SESSION_TIMEOUT_MS, info, why)) return fd;
  close(fd);
  return -1;
}

static bool same_info(const struct export_info *a, const struct export_info *b) {
  return a->size == b->size && a->flags == b->flags;
}

bool sessions_extend(struct session_set *set, const struct address *address, const char *export_name,
                     unsigned count, struct failure *why) {
  while (set->count < count) {
    struct export_info info;
    int fd = session_open(address, export_name, HANDSHAKE_GO, &info, why);
    if (fd < 0) return false;
    if (set->count == 0) {
      set->info = info;
    } else if (!same_info(&set->info, &info)) {
      say_goodbye(fd, HANDSHAKE_GO);
      close(fd);
      return fail(why, "try again",
                  "the server at %s changed its mind about size or flags between two connections",
                  address->text);
    }
    prepare_for_kernel(fd);
    set->fds[set->count++] = fd;
  }
  return true;
}

void sessions_abandon(struct session_set *set) {
  for (unsigned i = 0; i < set->count; i++) say_goodbye(set->fds[i], HANDSHAKE_GO);
  sessions_close(set);
}

void sessions_close(struct session_set *set) {
  for (unsigned i = 0; i < set->count; i++) close(set->fds[i]);
  set->count = 0;
}

bool session_ask(const struct address *address, const char *export_name, struct export_info *info,
                 struct failure *why) {
  int fd = session_open(address, export_name, HANDSHAKE_INFO, info, why);
  if (fd < 0) return false;
  say_goodbye(fd, HANDSHAKE_INFO);
  close(fd);
  return true;
}

bool choose_block_size(const struct export_info *info, uint32_t wanted, uint32_t *out, struct failure *why) {
  if (info->block_min > BLOCK_SIZE_MAX) {
    return fail(why, "serve it with smaller blocks",
                "the server's smallest block is %u bytes, the kernel's largest %u", info->block_min,
                BLOCK_SIZE_MAX);
  }
  if (wanted != 0) {
    if (wanted < info->block_min) {
      return fail(why, "choose a larger --block-size, or none",
                  "the server's smallest block is %u bytes, larger than %u", info->block_min, wanted);
    }
    if (info->size % wanted != 0) {
      return fail(why, "choose a smaller --block-size, or none",
                  "the volume's %llu bytes are no multiple of %u", (unsigned long long)info->size, wanted);
    }
    *out = wanted;
    return true;
  }
  uint32_t block = BLOCK_SIZE_MAX;
  while (block > SECTOR_SIZE && info->size % block != 0) block /= 2;
  if (info->size % block != 0 || block < info->block_min) {
    return fail(why, "resize the volume to a multiple of 4096 bytes",
                "the volume's %llu bytes are no whole number of blocks", (unsigned long long)info->size);
  }
  *out = block;
  return true;
}

uint16_t flags_for_kernel(const struct export_info *info, bool read_only) {
  return (uint16_t)((info->flags & FLAGS_OF_KERNEL) | (read_only ? NBD_FLAG_READ_ONLY : 0));
}

unsigned request_max_kib(const struct export_info *info) {
  unsigned most = info->payload_max / 1024;
  return most < REQUEST_MAX_KIB ? most : REQUEST_MAX_KIB;
}

bool still_serves(const struct attachment *a, const struct export_info *info, struct failure *why) {
  static const char same[] = "serve the same volume again under this name";
  static const uint16_t relied_on =
      NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES;
  if (info->size < a->size) {
    return fail(why, same, "the volume has shrunk from %llu to %llu bytes", (unsigned long long)a->size,
                (unsigned long long)info->size);
  }
  if (info->block_min > a->block_size) {
    return fail(why, same, "the server's smallest block is now %u bytes, the device's %u", info->block_min,
                a->block_size);
  }
  if (!(a->flags & NBD_FLAG_READ_ONLY) && (info->flags & NBD_FLAG_READ_ONLY)) {
    return fail(why, "make it writable again", "the volume has become read-only");
  }
  if (a->connections > 1 && !(info->flags & NBD_FLAG_CAN_MULTI_CONN)) {
    return fail(why, same, "the server no longer takes several connections");
  }
  if ((a->flags & relied_on & ~info->flags) != 0) {
    return fail(why, same, "the server can no longer do what it could (flags 0x%x, were 0x%x)", info->flags,
                a->flags);
  }
  return true;
}
