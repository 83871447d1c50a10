/*
 * Sessions with a server that are ready for the kernel, and what is chosen from what it says.
 *
 *  All sessions of one set go to one address, and each of them was told the same size and flags.
 */
#ifndef LAMINA_ATTACH_SESSION_H
#define LAMINA_ATTACH_SESSION_H

#include "handshake.h"
#include "nbd-netlink.h"
#include "state.h"
#include "transport.h"

/* For connecting, the handshake and every wait in them together. A server ends a slow handshake as soon. */
#define SESSION_TIMEOUT_MS 10000
/* Of these, for connecting alone: a gateway that is gone must not keep the others waiting. */
#define CONNECT_TIMEOUT_MS 4000

struct session_set {
  int fds[CONNECTIONS_MAX];
  unsigned count;
  struct export_info info;
};

/* One session; −1 on failure. */
int session_open(const struct address *address, const char *export_name, enum handshake_mode mode,
                 struct export_info *info, struct failure *why);

/* Makes the set `count` sessions strong. On failure it keeps those that it got. */
bool sessions_extend(struct session_set *set, const struct address *address, const char *export_name,
                     unsigned count, struct failure *why);

/* Ends the sessions politely: nobody has them. */
void sessions_abandon(struct session_set *set);
/* Forgets our descriptors; the kernel has its own. */
void sessions_close(struct session_set *set);

/* Asks for size and flags without opening the volume. */
bool session_ask(const struct address *address, const char *export_name, struct export_info *info,
                 struct failure *why);

/* The device's block size: `wanted`, or the best one (4096 where the size allows) when that is 0. */
bool choose_block_size(const struct export_info *info, uint32_t wanted, uint32_t *out, struct failure *why);

/* Flags that the kernel's driver knows. */
uint16_t flags_for_kernel(const struct export_info *info, bool read_only);

/* KiB of the largest request that the kernel should make. */
unsigned request_max_kib(const struct export_info *info);

/* The export can go on serving the device: as large as it was or larger, and with all that it could do. */
bool still_serves(const struct attachment *attachment, const struct export_info *info, struct failure *why);

#endif
