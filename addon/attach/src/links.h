/*
 * Which of a device's sockets still stand. The driver does not tell; but the sockets that it holds are in the
 * kernel's own tables under the inode numbers that they had here, until it lets go of them. So the answer is
 * right whatever events were missed, and after a restart of the monitor.
 */
#ifndef LAMINA_ATTACH_LINKS_H
#define LAMINA_ATTACH_LINKS_H

#include <stdint.h>

/* The number under which a socket is found again; 0 when it has none. */
uint64_t link_of(int fd);

/* Moves those that are established to the front of the list and returns their number. */
unsigned keep_established(uint64_t *links, unsigned count);

#endif
