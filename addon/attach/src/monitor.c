/*
 * monitor: one process for all devices.
 *
 *  1. It holds no connection and nothing in memory that is not in the files or the kernel: it may be killed and
 *     started again at any time, and finds every device as it is.
 *  2. It never waits for a server or a device itself: each look at a device is a child of its own, one at a
 *     time for each device. So one that hangs holds up nobody else.
 *  3. Events make it quick; that it looks at every device from time to time makes it right.
 *  4. It stays in memory: it may be what a page of its own waits for.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "commands.h"
#include "repair.h"
#include "state.h"

/* Each device is looked at this often when all is well: for lost events and new sizes. */
#define LOOK_MS 15000
/* After an event that found nothing dead, once more: the event may be quicker than the socket's end. */
#define LOOK_AGAIN_MS 500
/* Between attempts, doubling. */
#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 5000
/* A monitor that ends holds its lock for a moment longer. */
#define LOCK_TIMEOUT_MS 3000

struct watched {
  uint32_t index;
  /* 0 when nobody looks at it now. */
  pid_t worker;
  int64_t next_look;
  /* Its connections stand since then; 0 when they do not. */
  int64_t whole_since;
  int64_t backoff;
  /* For the next look, and for the one that is under way. */
  bool suspect;
  bool was_suspect;
  bool listed;
};

struct monitor {
  struct nbd_netlink netlink;
  int signals;
  int changes;
  int lock;
  struct watched devices[ATTACHMENTS_MAX];
  unsigned count;
};

static struct watched *find(struct monitor *monitor, uint32_t index) {
  for (unsigned i = 0; i < monitor->count; i++) {
    if (monitor->devices[i].index == index) return &monitor->devices[i];
  }
  return NULL;
}

static void look_soon(struct watched *device) {
  device->suspect = true;
  device->next_look = now_ms();
  device->backoff = BACKOFF_MIN_MS;
}

static void watch(struct monitor *monitor, uint32_t index) {
  struct watched *device = find(monitor, index);
  if (device == NULL) {
    if (monitor->count == ATTACHMENTS_MAX) return;
    device = &monitor->devices[monitor->count++];
    *device = (struct watched){.index = index};
    look_soon(device);
    note("/dev/nbd%u: watched", index);
  }
  device->listed = true;
}

/* Brings the list in line with the files. A device that someone still looks at stays until that ends. */
static void list_devices(struct monitor *monitor) {
  static uint32_t indices[ATTACHMENTS_MAX];
  unsigned count = state_list(indices);
  for (unsigned i = 0; i < monitor->count; i++) monitor->devices[i].listed = false;
  for (unsigned i = 0; i < count; i++) watch(monitor, indices[i]);
  unsigned kept = 0;
  for (unsigned i = 0; i < monitor->count; i++) {
    struct watched *device = &monitor->devices[i];
    if (device->listed || device->worker != 0)
      monitor->devices[kept++] = *device;
    else
      note("/dev/nbd%u: no longer attached", device->index);
  }
  monitor->count = kept;
}

static void close_inherited(const struct monitor *monitor) {
  /* The lock above all: a child that hangs must not keep the next monitor from starting. */
  close(monitor->lock);
  close(monitor->netlink.fd);
  close(monitor->signals);
  close(monitor->changes);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
}

static void look(struct monitor *monitor, struct watched *device, int64_t now) {
  struct repair_task task = {.index = device->index, .suspect = device->suspect};
  task.settled = device->whole_since != 0 && now - device->whole_since >= settle_ms(device->index);
  pid_t pid = fork();
  if (pid == 0) {
    close_inherited(monitor);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    mlockall(MCL_CURRENT);
    _exit(repair(&task));
  }
  if (pid < 0) {
    note("cannot fork: %s", strerror(errno));
    device->next_look = now + BACKOFF_MAX_MS;
    return;
  }
  device->worker = pid;
  device->was_suspect = device->suspect;
  device->suspect = false;
  device->next_look = INT64_MAX;
}

static void looked(struct watched *device, int status, int64_t now) {
  bool event_meanwhile = device->next_look != INT64_MAX;
  int result = WIFEXITED(status) ? WEXITSTATUS(status) : REPAIR_AGAIN;
  device->worker = 0;
  if (result == REPAIR_WHOLE) {
    if (device->whole_since == 0) device->whole_since = now;
    device->backoff = BACKOFF_MIN_MS;
    device->next_look = now + (event_meanwhile || device->was_suspect ? LOOK_AGAIN_MS : LOOK_MS);
    return;
  }
  device->whole_since = 0;
  /* What made it suspect has not been answered yet. */
  device->suspect = true;
  /* A quarter more or less, so that the devices of a server do not all come at the same moment. */
  int64_t jitter = device->backoff / 4;
  device->next_look = now + device->backoff - jitter + (rand() % (2 * (int)jitter + 1));
  if (event_meanwhile) device->next_look = now;
  device->backoff = device->backoff * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : device->backoff * 2;
}

static void reap(struct monitor *monitor) {
  int status;
  for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
    for (unsigned i = 0; i < monitor->count; i++) {
      if (monitor->devices[i].worker == pid) looked(&monitor->devices[i], status, now_ms());
    }
  }
  list_devices(monitor);
}

static void look_where_due(struct monitor *monitor) {
  int64_t now = now_ms();
  for (unsigned i = 0; i < monitor->count; i++) {
    struct watched *device = &monitor->devices[i];
    if (device->worker == 0 && device->next_look <= now) look(monitor, device, now);
  }
}

static int wait_ms(const struct monitor *monitor) {
  int64_t next = INT64_MAX;
  for (unsigned i = 0; i < monitor->count; i++) {
    const struct watched *device = &monitor->devices[i];
    if (device->worker == 0 && device->next_look < next) next = device->next_look;
  }
  if (next == INT64_MAX) return -1;
  int64_t left = next - now_ms();
  return left < 0 ? 0 : left > LOOK_MS ? LOOK_MS : (int)left;
}

static void take_events(struct monitor *monitor) {
  uint32_t index;
  for (;;) {
    enum netlink_event event = netlink_next_event(&monitor->netlink, &index);
    if (event == EVENT_NONE) return;
    for (unsigned i = 0; i < monitor->count; i++) {
      struct watched *device = &monitor->devices[i];
      if (event == EVENT_LINK_DEAD && device->index != index) continue;
      device->whole_since = 0;
      look_soon(device);
    }
  }
}

static void drain(int fd) {
  char buffer[4096];
  while (read(fd, buffer, sizeof buffer) > 0) continue;
}

/* False when it is time to go. The devices stay attached. */
static bool take_signals(struct monitor *monitor) {
  struct signalfd_siginfo signal;
  while (read(monitor->signals, &signal, sizeof signal) == (ssize_t)sizeof signal) {
    if (signal.ssi_signo == SIGTERM || signal.ssi_signo == SIGINT) return false;
    if (signal.ssi_signo == SIGCHLD) reap(monitor);
    if (signal.ssi_signo != SIGHUP) continue;
    for (unsigned i = 0; i < monitor->count; i++) {
      if (monitor->devices[i].worker == 0) monitor->devices[i].next_look = now_ms();
    }
  }
  return true;
}

/* systemd's readiness protocol: one datagram to the socket that it names. */
static void tell_systemd(const char *state) {
  const char *path = getenv("NOTIFY_SOCKET");
  struct sockaddr_un to = {.sun_family = AF_UNIX};
  if (path == NULL || path[0] == '\0' || strlen(path) >= sizeof to.sun_path) return;
  size_t length = strlen(path);
  memcpy(to.sun_path, path, length);
  /* A leading @ stands for the abstract namespace. */
  if (to.sun_path[0] == '@') to.sun_path[0] = '\0';
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return;
  socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
  (void)!sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&to, size);
  close(fd);
}

static bool open_signals(struct monitor *monitor, struct failure *why) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGHUP);
  sigaddset(&set, SIGCHLD);
  sigprocmask(SIG_BLOCK, &set, NULL);
  monitor->signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
  return monitor->signals >= 0 || fail(why, NULL, "cannot watch signals: %s", strerror(errno));
}

static bool open_changes(struct monitor *monitor, struct failure *why) {
  monitor->changes = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  bool watching = monitor->changes >= 0 &&
                  inotify_add_watch(monitor->changes, state_path(), IN_MOVED_TO | IN_DELETE) >= 0;
  return watching || fail(why, NULL, "cannot watch %s: %s", state_path(), strerror(errno));
}

static bool start(struct monitor *monitor, struct failure *why) {
  if (!state_directory(true, why)) return false;
  monitor->lock = monitor_lock(now_ms() + LOCK_TIMEOUT_MS);
  if (monitor->lock < 0) return fail(why, "one is enough for all devices", "a monitor runs already");
  if (!netlink_open(&monitor->netlink, why) || !netlink_subscribe(&monitor->netlink, why)) return false;
  if (!open_signals(monitor, why) || !open_changes(monitor, why)) return false;
  mlockall(MCL_CURRENT | MCL_FUTURE);
#ifdef PR_SET_IO_FLUSHER
  /* Memory that it needs is not to be had by writing to the devices that it repairs. */
  prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
#endif
  srand((unsigned)getpid());
  list_devices(monitor);
  return true;
}

static void run(struct monitor *monitor) {
  enum { SIGNALS, EVENTS, CHANGES, SOURCES };
  struct pollfd sources[SOURCES] = {[SIGNALS] = {.fd = monitor->signals, .events = POLLIN},
                                    [EVENTS] = {.fd = monitor->netlink.fd, .events = POLLIN},
                                    [CHANGES] = {.fd = monitor->changes, .events = POLLIN}};
  for (;;) {
    look_where_due(monitor);
    if (poll(sources, SOURCES, wait_ms(monitor)) < 0 && errno != EINTR) return;
    if (sources[SIGNALS].revents != 0 && !take_signals(monitor)) return;
    if (sources[CHANGES].revents != 0) {
      drain(monitor->changes);
      list_devices(monitor);
    }
    if (sources[EVENTS].revents != 0) take_events(monitor);
  }
}

int command_monitor(int argc, char **argv) {
  (void)argv;
  static struct monitor monitor;
  struct failure why;
  if (argc > 0) {
    fail_usage(&why, NULL, "monitor takes no arguments");
    return report(&why);
  }
  if (!start(&monitor, &why)) return report(&why);
  note("watching %u device%s", monitor.count, monitor.count == 1 ? "" : "s");
  tell_systemd("READY=1");
  run(&monitor);
  tell_systemd("STOPPING=1");
  note("stopped; devices stay attached, but do not reconnect");
  return EXIT_OK;
}
