#include "links.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* "st" of /proc/net/tcp and /proc/net/unix. */
#define TCP_ESTABLISHED_STATE 0x01u
#define UNIX_CONNECTED_STATE 0x03u

uint64_t link_of(int fd) {
  struct stat status;
  return fstat(fd, &status) == 0 ? (uint64_t)status.st_ino : 0;
}

static void mark(uint64_t inode, const uint64_t *links, unsigned count, bool *found) {
  for (unsigned i = 0; i < count; i++) {
    if (links[i] == inode) found[i] = true;
  }
}

static void scan(const char *path, const char *format, unsigned established, const uint64_t *links,
                 unsigned count, bool *found) {
  FILE *table = fopen(path, "re");
  if (table == NULL) return;
  char line[512];
  while (fgets(line, sizeof line, table) != NULL) {
    unsigned state;
    unsigned long long inode;
    if (sscanf(line, format, &state, &inode) == 2 && state == established) mark(inode, links, count, found);
  }
  fclose(table);
}

unsigned keep_established(uint64_t *links, unsigned count) {
  static const char tcp[] = " %*s %*s %*s %x %*s %*s %*s %*s %*s %llu";
  bool found[64] = {false};
  if (count > 64) count = 64;
  if (count == 0) return 0;
  scan("/proc/net/tcp", tcp, TCP_ESTABLISHED_STATE, links, count, found);
  scan("/proc/net/tcp6", tcp, TCP_ESTABLISHED_STATE, links, count, found);
  scan("/proc/net/unix", " %*s %*s %*s %*s %*s %x %llu", UNIX_CONNECTED_STATE, links, count, found);
  unsigned kept = 0;
  for (unsigned i = 0; i < count; i++) {
    if (found[i]) links[kept++] = links[i];
  }
  return kept;
}
