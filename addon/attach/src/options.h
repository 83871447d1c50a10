/* Options of the commands that talk to a server, parsed and bounded. */
#ifndef LAMINA_ATTACH_OPTIONS_H
#define LAMINA_ATTACH_OPTIONS_H

#include <stdint.h>

#include "uri.h"

/* Two, because with one the older drivers fail a read that was cut in its middle. */
#define CONNECTIONS_DEFAULT 2
/*
 * Seconds after which the kernel gives up on a connection that does not answer and sends the request again.
 * Requests in flight when a server dies are repeated after this at the latest.
 */
#define TIMEOUT_DEFAULT_S 10
#define TIMEOUT_MAX_S 3600
/* Seconds for which I/O waits when there is no connection at all; then it fails. */
#define DEAD_TIMEOUT_DEFAULT_S (24 * 3600)
#define DEAD_TIMEOUT_MAX_S (365 * 24 * 3600)
#define WAIT_MAX_S 86400

struct options {
  const char *uri_text;
  struct uri uri;
  /* The URI's host and then every --address, numeric, without repetitions. */
  struct address addresses[ADDRESSES_MAX];
  unsigned address_count;
  bool has_device;
  uint32_t device;
  unsigned connections;
  uint32_t timeout_s;
  uint32_t dead_timeout_s;
  uint32_t wait_s;
  uint32_t block_size;
  bool read_only;
  bool json;
};

bool parse_options(int argc, char **argv, struct options *out, struct failure *why);

/* The decimal value of an option, within its bounds. */
bool parse_number(const char *option, const char *text, uint32_t least, uint32_t most, uint32_t *out,
                  struct failure *why);

#endif
