#include "state.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "json.h"
#include "links.h"

#define STATE_DIRECTORY "/run/lamina/attach"
#define STATE_VERSION 1
/* A file with every member at its largest. */
#define FILE_MAX 16384
#define LOCK_POLL_MS 20
#define PATH_LENGTH_MAX 512

/* Tests of the parts that need no kernel use a directory of their own. */
const char *state_path(void) {
  const char *other = getenv("LAMINA_ATTACH_STATE");
  return other != NULL && other[0] == '/' && strlen(other) < 256 ? other : STATE_DIRECTORY;
}

static void path_of(char *out, size_t size, uint32_t index, const char *suffix) {
  snprintf(out, size, "%s/nbd%u.%s", state_path(), index, suffix);
}

static bool make_directories(struct failure *why) {
  char path[PATH_LENGTH_MAX];
  snprintf(path, sizeof path, "%s", state_path());
  for (char *slash = strchr(path + 1, '/');; slash = strchr(slash + 1, '/')) {
    if (slash != NULL) *slash = '\0';
    if (mkdir(path, 0755) != 0 && errno != EEXIST)
      return fail(why, "run it as root", "cannot make %s: %s", path, strerror(errno));
    if (slash == NULL) return true;
    *slash = '/';
  }
}

bool state_directory(bool create, struct failure *why) {
  if (create && !make_directories(why)) return false;
  struct stat status;
  if (stat(state_path(), &status) != 0) {
    return fail(why, NULL, "nothing is attached: %s does not exist", state_path());
  }
  if (!S_ISDIR(status.st_mode) || status.st_uid != 0 || (status.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return fail(why, "remove it or correct its owner and mode", "%s can be written by others than root",
                state_path());
  }
  return true;
}

static void write_numbers(FILE *to, const char *key, const uint64_t *numbers, unsigned count) {
  fprintf(to, "  \"%s\": [", key);
  for (unsigned i = 0; i < count; i++)
    fprintf(to, "%s%llu", i == 0 ? "" : ", ", (unsigned long long)numbers[i]);
  fprintf(to, "],\n");
}

static void write_member(FILE *to, const char *key, const char *text) {
  fprintf(to, "  \"%s\": ", key);
  json_write_string(to, text);
  fprintf(to, ",\n");
}

static void write_number(FILE *to, const char *key, uint64_t number) {
  fprintf(to, "  \"%s\": %llu,\n", key, (unsigned long long)number);
}

static void write_members(FILE *to, const struct attachment *a) {
  fprintf(to, "{\n");
  write_number(to, "version", STATE_VERSION);
  write_number(to, "index", a->index);
  write_number(to, "id", a->id);
  write_member(to, "uri", a->uri);
  write_member(to, "backend", a->backend);
  write_member(to, "export", a->export_name);
  fprintf(to, "  \"addresses\": [");
  for (unsigned i = 0; i < a->address_count; i++) {
    fprintf(to, "%s", i == 0 ? "" : ", ");
    json_write_string(to, a->addresses[i].text);
  }
  fprintf(to, "],\n");
  write_number(to, "current", a->current);
  write_number(to, "connections", a->connections);
  write_numbers(to, "links", a->links, a->link_count);
  write_number(to, "size", a->size);
  write_number(to, "blockSize", a->block_size);
  write_number(to, "flags", a->flags);
  write_number(to, "timeout", a->timeout_s);
  write_number(to, "deadTimeout", a->dead_timeout_s);
  write_number(to, "attachedAt", (uint64_t)a->attached_at);
  write_number(to, "waitsSince", (uint64_t)a->waits_since);
  fprintf(to, "  \"waitsFor\": ");
  json_write_string(to, a->waits_for);
  fprintf(to, "\n}\n");
}

bool state_write(const struct attachment *attachment, struct failure *why) {
  char path[PATH_LENGTH_MAX];
  char fresh[PATH_LENGTH_MAX];
  path_of(path, sizeof path, attachment->index, "json");
  path_of(fresh, sizeof fresh, attachment->index, "new");
  FILE *file = fopen(fresh, "we");
  if (file == NULL) return fail(why, NULL, "cannot write %s: %s", fresh, strerror(errno));
  write_members(file, attachment);
  bool failed = ferror(file) != 0;
  failed |= fclose(file) != 0;
  if (!failed && rename(fresh, path) == 0) return true;
  fail(why, NULL, "cannot write %s: %s", path, strerror(errno));
  unlink(fresh);
  return false;
}

static void copy_text(char *out, size_t size, const struct json_value *value) {
  if (value->text != NULL) snprintf(out, size, "%s", value->text);
}

static void take_value(void *context, const char *key, const struct json_value *value) {
  struct attachment *a = context;
  if (strcmp(key, "uri") == 0)
    copy_text(a->uri, sizeof a->uri, value);
  else if (strcmp(key, "backend") == 0)
    copy_text(a->backend, sizeof a->backend, value);
  else if (strcmp(key, "export") == 0)
    copy_text(a->export_name, sizeof a->export_name, value);
  else if (strcmp(key, "waitsFor") == 0)
    copy_text(a->waits_for, sizeof a->waits_for, value);
  else if (strcmp(key, "id") == 0)
    a->id = value->number;
  else if (strcmp(key, "current") == 0)
    a->current = (unsigned)value->number;
  else if (strcmp(key, "connections") == 0)
    a->connections = (unsigned)value->number;
  else if (strcmp(key, "size") == 0)
    a->size = value->number;
  else if (strcmp(key, "blockSize") == 0)
    a->block_size = (uint32_t)value->number;
  else if (strcmp(key, "flags") == 0)
    a->flags = (uint16_t)value->number;
  else if (strcmp(key, "timeout") == 0)
    a->timeout_s = (uint32_t)value->number;
  else if (strcmp(key, "deadTimeout") == 0)
    a->dead_timeout_s = (uint32_t)value->number;
  else if (strcmp(key, "attachedAt") == 0)
    a->attached_at = (int64_t)value->number;
  else if (strcmp(key, "waitsSince") == 0)
    a->waits_since = (int64_t)value->number;
  else if (strcmp(key, "links") == 0 && value->position < LINKS_MAX) {
    a->links[value->position] = value->number;
    a->link_count = value->position + 1;
  } else if (strcmp(key, "addresses") == 0 && value->position < ADDRESSES_MAX) {
    copy_text(a->addresses[value->position].text, sizeof a->addresses[0].text, value);
    a->address_count = value->position + 1;
  }
}

static bool is_whole(const struct attachment *a) {
  return a->uri[0] != '\0' && a->backend[0] != '\0' && a->address_count > 0 &&
         a->current < a->address_count && a->connections > 0 && a->connections <= CONNECTIONS_MAX &&
         a->size > 0 && a->block_size > 0;
}

bool state_read(uint32_t index, struct attachment *out) {
  char path[PATH_LENGTH_MAX];
  path_of(path, sizeof path, index, "json");
  FILE *file = fopen(path, "re");
  if (file == NULL) return false;
  char text[FILE_MAX];
  size_t length = fread(text, 1, sizeof text - 1, file);
  fclose(file);
  text[length] = '\0';
  memset(out, 0, sizeof *out);
  out->index = index;
  return json_read(text, take_value, out) && is_whole(out);
}

void state_remove(uint32_t index) {
  char path[PATH_LENGTH_MAX];
  path_of(path, sizeof path, index, "json");
  unlink(path);
}

static int by_number(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a;
  uint32_t y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

unsigned state_list(uint32_t *indices) {
  DIR *directory = opendir(state_path());
  if (directory == NULL) return 0;
  unsigned count = 0;
  for (struct dirent *entry; count < ATTACHMENTS_MAX && (entry = readdir(directory)) != NULL;) {
    char *suffix = strrchr(entry->d_name, '.');
    if (suffix == NULL || strcmp(suffix, ".json") != 0) continue;
    *suffix = '\0';
    if (device_index(entry->d_name, &indices[count])) count++;
  }
  closedir(directory);
  qsort(indices, count, sizeof indices[0], by_number);
  return count;
}

bool state_is_live(const struct attachment *attachment) {
  char backend[BACKEND_MAX];
  if (!device_is_connected(attachment->index)) return false;
  device_backend(attachment->index, backend, sizeof backend);
  return strcmp(backend, attachment->backend) == 0;
}

bool state_update(const struct attachment *attachment, struct failure *why) {
  static struct attachment now;
  bool same = state_read(attachment->index, &now) && now.id == attachment->id && state_is_live(attachment);
  if (!same) return fail(why, NULL, "/dev/nbd%u was detached meanwhile", attachment->index);
  return state_write(attachment, why);
}

bool state_is_local(const struct attachment *attachment) {
  return strncmp(attachment->addresses[0].text, "unix:", 5) == 0;
}

unsigned state_live_links(struct attachment *a) {
  a->link_count = keep_established(a->links, a->link_count);
  if (a->link_count > a->connections) a->link_count = a->connections;
  /* A unix socket looks connected after its peer's death: what the monitor found out says more. */
  if (state_is_local(a) && a->waits_since != 0) a->link_count = 0;
  return a->link_count;
}

/* Locks are for root only: nobody else can hold one and so keep the monitor from starting. */
static int open_lock(const char *name) {
  char path[PATH_LENGTH_MAX];
  snprintf(path, sizeof path, "%s/%s.lock", state_path(), name);
  return open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
}

static int lock_named(const char *name, int64_t deadline) {
  int fd = open_lock(name);
  if (fd < 0) return -1;
  while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (now_ms() >= deadline) {
      close(fd);
      return -1;
    }
    usleep(LOCK_POLL_MS * 1000);
  }
  return fd;
}

int state_lock(uint32_t index, int64_t deadline) {
  char name[32];
  snprintf(name, sizeof name, "nbd%u", index);
  return lock_named(name, deadline);
}

int attach_lock(int64_t deadline) { return lock_named("attach", deadline); }

int monitor_lock(int64_t deadline) { return lock_named("monitor", deadline); }

bool monitor_runs(void) {
  int fd = open_lock("monitor");
  /* Who may not look is not alarmed. */
  if (fd < 0) return errno == EACCES;
  bool is_free = flock(fd, LOCK_SH | LOCK_NB) == 0;
  close(fd);
  return !is_free;
}

void state_unlock(int fd) {
  if (fd >= 0) close(fd);
}
