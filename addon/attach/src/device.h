/*
 * /dev/nbdN as /sys and /proc show it. Only a child of ours ever opens the device: an open may read its partition
 * table, and a read may wait for a server that is gone.
 */
#ifndef LAMINA_ATTACH_DEVICE_H
#define LAMINA_ATTACH_DEVICE_H

#include <stddef.h>
#include <stdint.h>

#include "say.h"

/* Bytes of a backend identifier: the URI and a prefix. */
#define BACKEND_MAX 1100

/* The N of "/dev/nbdN" or "nbdN". False when it is neither. */
bool device_index(const char *text, uint32_t *index);

/* It has a configuration: someone attached it, and nobody has fully detached it. */
bool device_is_connected(uint32_t index);
bool device_exists(uint32_t index);
/* The identifier it was attached with; empty when it has none. */
void device_backend(uint32_t index, char *out, size_t size);
/* Requests that were sent and not answered. Those that wait for a connection are not among them. */
unsigned device_requests(uint32_t index);

/* Whether something stands on it (a mount, swap, a mapped device), and what. */
bool device_in_use(uint32_t index, char *what, size_t size);
/* A process that has it open; 0 when there is none. */
int device_opener(uint32_t index);

/*
 * Opens it once, so that its partitions are there; the first open reads their table. Gives up waiting at
 * `deadline`.
 */
void device_scan(uint32_t index, int64_t deadline);
/* Nothing in the page cache waits to be written. Says no when that is not known by `deadline`. */
bool device_is_clean(uint32_t index, int64_t deadline);

/* The largest single request in KiB, as far as the driver allows. */
void device_set_request_max(uint32_t index, unsigned kib);

/* Waits until the device has let go of its configuration. */
bool device_wait_until_free(uint32_t index, int64_t deadline);

#endif
