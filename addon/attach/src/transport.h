/*
 * Where a server is, and the bytes to and from it.
 *
 *  1. Every wait has a deadline: an absolute moment in monotonic milliseconds.
 *  2. Exactly what was asked for is read: what follows the handshake belongs to the kernel.
 *  3. Addresses are numeric. Names are looked up once, when a volume is attached, so that reconnecting needs
 *     no name server (which may be behind the very network that failed).
 */
#ifndef LAMINA_ATTACH_TRANSPORT_H
#define LAMINA_ATTACH_TRANSPORT_H

#include <stddef.h>
#include <stdint.h>

#include "say.h"

/* "[v6%scope]:port" or "unix:" and a path of at most 107 bytes. */
#define ADDRESS_TEXT_MAX 128

struct address {
  char text[ADDRESS_TEXT_MAX];
};

int64_t now_ms(void);
/* Seconds since 1970, for people. */
int64_t wall_seconds(void);

/* A connected, non-blocking, close-on-exec stream socket, or −1. */
int connect_to(const struct address *address, int64_t deadline, struct failure *why);

bool read_exactly(int fd, void *to, size_t length, int64_t deadline, struct failure *why);
bool write_all(int fd, const void *from, size_t length, int64_t deadline, struct failure *why);

/* The form in which a socket is given to the kernel: blocking, with keepalive so that an idle dead one shows. */
void prepare_for_kernel(int fd);

#endif
