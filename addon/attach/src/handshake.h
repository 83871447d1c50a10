/*
 * The client's side of the fixed-newstyle handshake.
 *
 *  1. Nothing that the server says is believed before it was bounded: no length of its choosing is allocated,
 *     and it may send only so many replies.
 *  2. Structured replies are never asked for: the kernel's driver understands simple ones only.
 *  3. On success of HANDSHAKE_GO not one byte of the transmission phase was read.
 */
#ifndef LAMINA_ATTACH_HANDSHAKE_H
#define LAMINA_ATTACH_HANDSHAKE_H

#include <stdint.h>

#include "say.h"

/* Bytes of an export's name. The specification asks clients to stay within 256. */
#define EXPORT_NAME_MAX 256

struct export_info {
  uint64_t size;
  uint16_t flags;
  /* What the server advertised, or the protocol's defaults. */
  uint32_t block_min;
  uint32_t block_preferred;
  uint32_t payload_max;
};

enum handshake_mode {
  /* Ends in the transmission phase; falls back to EXPORT_NAME. */
  HANDSHAKE_GO,
  /* Only asks; the connection is of no further use. */
  HANDSHAKE_INFO,
};

bool handshake(int fd, const char *name, enum handshake_mode mode, int64_t deadline, struct export_info *info,
               struct failure *why);

/* Leaves politely what `handshake` began (DISC after HANDSHAKE_GO, ABORT after HANDSHAKE_INFO); never waits. */
void say_goodbye(int fd, enum handshake_mode mode);

#endif
