/*
 * nbd://HOST[:PORT]/EXPORT, nbd+unix:///EXPORT?socket=PATH. Everything is bounded, and what cannot be honoured
 * (TLS, unknown parameters) is refused instead of ignored.
 */
#ifndef LAMINA_ATTACH_URI_H
#define LAMINA_ATTACH_URI_H

#include "handshake.h"
#include "say.h"
#include "transport.h"

#define URI_MAX 1024
#define HOST_MAX 256
/* Addresses of one volume: its gateways. */
#define ADDRESSES_MAX 8

struct uri {
  char export_name[EXPORT_NAME_MAX + 1];
  /* Empty for a unix socket. */
  char host[HOST_MAX];
  unsigned port;
  /* "unix:" and the path, for a unix socket. */
  struct address local;
};

bool parse_uri(const char *text, struct uri *out, struct failure *why);

/* HOST or HOST:PORT as given to --address. */
bool parse_host_port(const char *text, char *host, size_t host_size, unsigned *port, struct failure *why);

/*
 * Adds every numeric address of `host` to the list, those that are there already left out. A name is looked up
 * by the system's own `getent`, because a static program has no name service of its own.
 */
bool add_host(const char *host, unsigned port, struct address *list, unsigned *count, struct failure *why);

#endif
