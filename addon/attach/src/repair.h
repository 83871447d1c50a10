/*
 * One look at one attached device: finds its dead connections, replaces them, follows a volume that has grown.
 *
 *  1. While one connection stands, new ones go to the same address: never two sockets to different owners.
 *     Another address is tried only when none stands.
 *  2. A server is given to the kernel only if it serves what the device was made for: as large or larger, with
 *     the same abilities. Otherwise I/O goes on waiting.
 *  3. The size is changed only when all connections have stood for long enough that no request waits for a
 *     dead one: newer kernels stop the queue for it, and would wait for that request for ever.
 */
#ifndef LAMINA_ATTACH_REPAIR_H
#define LAMINA_ATTACH_REPAIR_H

#include <stdbool.h>
#include <stdint.h>

enum repair_result {
  /* Every connection stands. */
  REPAIR_WHOLE = 0,
  /* Some are missing: try again. */
  REPAIR_AGAIN = 1,
  /* The device is attached no more. */
  REPAIR_GONE = 2,
};

struct repair_task {
  uint32_t index;
  /* The kernel reported a dead connection, or nobody has looked yet. */
  bool suspect;
  /* Connections have stood long enough to look for a new size. */
  bool settled;
};

enum repair_result repair(const struct repair_task *task);

/* Seconds for which the connections must have stood: every request in flight at the last death was repeated. */
int64_t settle_ms(uint32_t index);

#endif
