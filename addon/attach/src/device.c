#include "device.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "transport.h"

#define PATH_MAX_HERE 192
/* How often something is looked at that should happen soon. */
#define POLL_MS 20

static void sys_path(char *out, size_t size, uint32_t index, const char *attribute) {
  snprintf(out, size, "/sys/block/nbd%u%s%s", index, attribute[0] == '\0' ? "" : "/", attribute);
}

/* The attribute's first line; empty when it cannot be read. */
static void read_attribute(uint32_t index, const char *attribute, char *out, size_t size) {
  char path[PATH_MAX_HERE];
  sys_path(path, sizeof path, index, attribute);
  out[0] = '\0';
  FILE *file = fopen(path, "re");
  if (file == NULL) return;
  if (fgets(out, (int)size, file) == NULL) out[0] = '\0';
  out[strcspn(out, "\n")] = '\0';
  fclose(file);
}

bool device_index(const char *text, uint32_t *index) {
  if (strncmp(text, "/dev/", 5) == 0) text += 5;
  if (strncmp(text, "nbd", 3) != 0 || text[3] < '0' || text[3] > '9') return false;
  char *end;
  unsigned long value = strtoul(text + 3, &end, 10);
  /* Minors have 20 bits. */
  if (*end != '\0' || value >= 1u << 20) return false;
  *index = (uint32_t)value;
  return true;
}

bool device_exists(uint32_t index) {
  char path[PATH_MAX_HERE];
  sys_path(path, sizeof path, index, "");
  return access(path, F_OK) == 0;
}

bool device_is_connected(uint32_t index) {
  char path[PATH_MAX_HERE];
  sys_path(path, sizeof path, index, "pid");
  return access(path, F_OK) == 0;
}

void device_backend(uint32_t index, char *out, size_t size) { read_attribute(index, "backend", out, size); }

unsigned device_requests(uint32_t index) {
  char line[64];
  read_attribute(index, "inflight", line, sizeof line);
  char *end;
  unsigned long reads = strtoul(line, &end, 10);
  unsigned long writes = strtoul(end, NULL, 10);
  return (unsigned)(reads + writes);
}

/* Whether `source` is /dev/nbdN or one of its partitions. */
static bool is_on_device(const char *source, uint32_t index) {
  char name[32];
  int length = snprintf(name, sizeof name, "/dev/nbd%u", index);
  if (strncmp(source, name, (size_t)length) != 0) return false;
  return source[length] == '\0' || source[length] == 'p';
}

/* The numbers of the whole disk and of every partition, as mountinfo writes them. */
static bool has_number(uint32_t index, const char *number) {
  char own[32];
  read_attribute(index, "dev", own, sizeof own);
  if (own[0] != '\0' && strcmp(own, number) == 0) return true;
  char path[PATH_MAX_HERE];
  sys_path(path, sizeof path, index, "");
  DIR *entries = opendir(path);
  if (entries == NULL) return false;
  char stem[16];
  size_t stem_length = (size_t)snprintf(stem, sizeof stem, "nbd%up", index);
  bool found = false;
  for (struct dirent *entry; !found && (entry = readdir(entries)) != NULL;) {
    if (strncmp(entry->d_name, stem, stem_length) != 0) continue;
    char attribute[64];
    snprintf(attribute, sizeof attribute, "%.40s/dev", entry->d_name);
    read_attribute(index, attribute, own, sizeof own);
    found = strcmp(own, number) == 0;
  }
  closedir(entries);
  return found;
}

static bool is_mounted(uint32_t index, char *what, size_t size) {
  FILE *mounts = fopen("/proc/self/mountinfo", "re");
  if (mounts == NULL) return false;
  char line[4096];
  bool found = false;
  while (!found && fgets(line, sizeof line, mounts) != NULL) {
    char number[32];
    char place[1024];
    if (sscanf(line, "%*d %*d %31s %*s %1023s", number, place) != 2) continue;
    found = has_number(index, number);
    if (found) snprintf(what, size, "mounted on %.200s", place);
  }
  fclose(mounts);
  return found;
}

static bool is_swap(uint32_t index, char *what, size_t size) {
  FILE *areas = fopen("/proc/swaps", "re");
  if (areas == NULL) return false;
  char line[1024];
  bool found = false;
  while (!found && fgets(line, sizeof line, areas) != NULL) {
    line[strcspn(line, " \t\n")] = '\0';
    found = is_on_device(line, index);
  }
  fclose(areas);
  if (found) snprintf(what, size, "used for swap");
  return found;
}

static bool has_holder(uint32_t index, char *what, size_t size) {
  char path[PATH_MAX_HERE];
  sys_path(path, sizeof path, index, "holders");
  DIR *holders = opendir(path);
  if (holders == NULL) return false;
  bool found = false;
  for (struct dirent *entry; !found && (entry = readdir(holders)) != NULL;) {
    if (entry->d_name[0] == '.') continue;
    found = true;
    snprintf(what, size, "held by %.64s", entry->d_name);
  }
  closedir(holders);
  return found;
}

bool device_in_use(uint32_t index, char *what, size_t size) {
  return is_mounted(index, what, size) || is_swap(index, what, size) || has_holder(index, what, size);
}

/* Whether one of the process's descriptors is the device. The links are read, not followed. */
static bool has_open(const char *pid, uint32_t index) {
  char path[PATH_MAX_HERE];
  snprintf(path, sizeof path, "/proc/%.16s/fd", pid);
  DIR *descriptors = opendir(path);
  if (descriptors == NULL) return false;
  bool found = false;
  for (struct dirent *entry; !found && (entry = readdir(descriptors)) != NULL;) {
    char target[64];
    ssize_t length = readlinkat(dirfd(descriptors), entry->d_name, target, sizeof target - 1);
    if (length <= 0) continue;
    target[length] = '\0';
    found = is_on_device(target, index);
  }
  closedir(descriptors);
  return found;
}

int device_opener(uint32_t index) {
  DIR *processes = opendir("/proc");
  if (processes == NULL) return 0;
  int pid = 0;
  for (struct dirent *entry; pid == 0 && (entry = readdir(processes)) != NULL;) {
    if (entry->d_name[0] < '1' || entry->d_name[0] > '9') continue;
    if (has_open(entry->d_name, index)) pid = atoi(entry->d_name);
  }
  closedir(processes);
  return pid;
}

/* True when the child has ended well by then. One that hangs is let go when the device is. */
static bool ended_well(pid_t child, int64_t deadline) {
  for (;;) {
    int status;
    if (waitpid(child, &status, WNOHANG) == child) return WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (now_ms() >= deadline) return false;
    usleep(POLL_MS * 1000);
  }
}

/* Opens the device in a child, and waits there until nothing is dirty, if that was asked for. */
static bool open_in_child(uint32_t index, bool until_clean, int64_t deadline) {
  pid_t child = fork();
  if (child < 0) return false;
  if (child > 0) return ended_well(child, deadline);
  /* If it hangs, it must not keep locks and sockets with it. */
  syscall(SYS_close_range, 3u, ~0u, 0u);
  char path[32];
  snprintf(path, sizeof path, "/dev/nbd%u", index);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) _exit(1);
  /* Not fsync, which asks the server for a FLUSH even when nothing is dirty. */
  unsigned all = SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
  _exit(until_clean && sync_file_range(fd, 0, 0, all) != 0 ? 1 : 0);
}

void device_scan(uint32_t index, int64_t deadline) { (void)open_in_child(index, false, deadline); }

bool device_is_clean(uint32_t index, int64_t deadline) { return open_in_child(index, true, deadline); }

void device_set_request_max(uint32_t index, unsigned kib) {
  char path[PATH_MAX_HERE];
  char line[32];
  read_attribute(index, "queue/max_hw_sectors_kb", line, sizeof line);
  unsigned long most = strtoul(line, NULL, 10);
  if (most != 0 && kib > most) kib = (unsigned)most;
  sys_path(path, sizeof path, index, "queue/max_sectors_kb");
  FILE *file = fopen(path, "we");
  if (file == NULL) return;
  fprintf(file, "%u\n", kib);
  fclose(file);
}

bool device_wait_until_free(uint32_t index, int64_t deadline) {
  while (device_is_connected(index)) {
    if (now_ms() >= deadline) return false;
    usleep(POLL_MS * 1000);
  }
  return true;
}
