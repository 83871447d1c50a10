/*
 * The kernel's generic-netlink interface to its NBD driver: family "nbd", no ioctl. One `struct nbd_netlink`
 * is one socket; requests are synchronous, events come on a socket that has subscribed.
 */
#ifndef LAMINA_ATTACH_NBD_NETLINK_H
#define LAMINA_ATTACH_NBD_NETLINK_H

#include <stdint.h>

#include "say.h"

/* Sockets of one device. The kernel has no limit; more than this never helps. */
#define CONNECTIONS_MAX 16

struct nbd_netlink {
  int fd;
  uint16_t family;
  uint32_t events_group;
  uint32_t sequence;
};

bool netlink_open(struct nbd_netlink *netlink, struct failure *why);
void netlink_close(struct nbd_netlink *netlink);

struct nbd_connect {
  uint32_t index;
  uint64_t size;
  uint64_t block_size;
  uint64_t server_flags;
  uint64_t timeout_s;
  uint64_t dead_timeout_s;
  const char *backend;
  const int *sockets;
  unsigned socket_count;
};

/* `busy` tells a device that someone uses from other failures. */
bool netlink_connect(struct nbd_netlink *netlink, const struct nbd_connect *request, bool *busy,
                     struct failure *why);

/*
 * Gives the device new sockets for its dead ones. The kernel takes as many as it has dead ones and keeps
 * silent about the rest: who wants to know looks which sockets are still open after closing its own copies.
 */
bool netlink_reconnect(struct nbd_netlink *netlink, uint32_t index, const char *backend, const int *sockets,
                       unsigned count, struct failure *why);
/* Newer kernels stop the queue for this: never while requests wait for a dead connection. */
bool netlink_resize(struct nbd_netlink *netlink, uint32_t index, const char *backend, uint64_t size,
                    struct failure *why);
/* Fails every request that waits. */
bool netlink_disconnect(struct nbd_netlink *netlink, uint32_t index, struct failure *why);

bool netlink_subscribe(struct nbd_netlink *netlink, struct failure *why);

enum netlink_event { EVENT_NONE, EVENT_LINK_DEAD, EVENT_LOST };
/* Takes one event without waiting. EVENT_LOST: the kernel had to drop some. */
enum netlink_event netlink_next_event(struct nbd_netlink *netlink, uint32_t *index);

#endif
