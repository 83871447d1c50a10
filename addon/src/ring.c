/*
 * One io_uring whose queues JavaScript reads and writes itself.
 *
 * Division of work: JavaScript fills submission entries, publishes the tail, drains completions and publishes
 * the head, all in the mapped memory. This file makes the ring, enters the kernel when asked, and rings a bell:
 * an eventfd registered with the ring and watched on the environment's own loop. One bell, one callback.
 *
 * Invariants
 *  1. Only the thread that made a ring enters it (IORING_SETUP_SINGLE_ISSUER).
 *  2. `submitted` (here) minus the completions that JavaScript has taken (control word 0) minus the final
 *     completions still in the queue is the number of requests that the kernel may still act on. The memory
 *     of an environment is unmapped only when that number is 0.
 */
#include "addon.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

enum {
  /* Control words (one page), then the arena of message headers and gather lists. */
  CONTROL_BYTES = 4096,
  CONTROL_SPIN = 2,
  ARENA_BYTES = 256 * 1024,
  /* How long the end of an environment waits for the kernel to give back its memory. */
  TEARDOWN_ROUND_MS = 100,
  TEARDOWN_ROUNDS_MAX = 100,
  /* Longest sleep in the ring. A server that has nothing to do sleeps in libuv's loop, as Node expects. */
  WAIT_MS_MAX = 10,
  SPIN_US_FIRST = 4,
  /* Between two looks at the clock. */
  SPIN_PAUSES = 16,
  /* Answer of a turn: nothing to wait for in the ring. */
  LEAVE = -1,
};

struct Ring {
  Instance *instance;
  int fd;
  int bell;
  struct io_uring_params params;
  uint8_t *queues;
  size_t queues_length;
  uint8_t *entries;
  size_t entries_length;
  uint8_t *control;
  uint32_t submitted;
  /* How long to look for completions before sleeping. Learned, by what is waited for: one kind says nothing of the other. */
  uint32_t spin_us[2];
  uv_poll_t poll;
  napi_ref queues_buffer, entries_buffer, control_buffer, callback;
  napi_async_context context;
  /* Torn down; only the memory of this structure is left, until libuv has closed the handle. */
  bool closed;
};

static int ring_setup(unsigned entries, struct io_uring_params *params) {
  return (int)syscall(SYS_io_uring_setup, entries, params);
}

static int ring_register(int fd, unsigned operation, void *argument, unsigned count) {
  return (int)syscall(SYS_io_uring_register, fd, operation, argument, count);
}

/* Submits `count` entries and, when `wait_us` > 0, waits that long for one completion. Entries taken or -errno. */
static int ring_enter_once(Ring *ring, unsigned count, unsigned wait_us) {
  ((_Atomic uint32_t *)ring->control)[1]++;
  if (wait_us == 0) {
    int taken = (int)syscall(SYS_io_uring_enter, ring->fd, count, 0, IORING_ENTER_GETEVENTS, NULL, 0);
    return taken < 0 ? -errno : taken;
  }
  struct __kernel_timespec_like {
    int64_t seconds, nanoseconds;
  } limit = {wait_us / 1000000, (int64_t)(wait_us % 1000000) * 1000};
  struct io_uring_getevents_arg argument = {.sigmask_sz = _NSIG / 8, .ts = (uint64_t)(uintptr_t)&limit};
  int taken = (int)syscall(SYS_io_uring_enter, ring->fd, count, 1, IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG,
                           &argument, sizeof argument);
  if (taken >= 0) return taken;
  /* With entries submitted the kernel returns their number, whatever ended the wait. */
  return errno == ETIME || errno == EINTR ? 0 : -errno;
}

static void on_poll_closed(uv_handle_t *handle) {
  Ring *ring = handle->data;
  Instance *instance = ring->instance;
  close(ring->bell);
  free(ring);
  instance_handle_closed(instance);
}

/* Takes the ring away from JavaScript. */
static void ring_conceal(Ring *ring) {
  Instance *instance = ring->instance;
  conceal_memory(instance, &ring->queues_buffer);
  conceal_memory(instance, &ring->entries_buffer);
  conceal_memory(instance, &ring->control_buffer);
  if (ring->callback != NULL) napi_delete_reference(instance->env, ring->callback);
  if (ring->context != NULL) napi_async_destroy(instance->env, ring->context);
}

static void ring_unmap(Ring *ring) {
  if (ring->queues != NULL) munmap(ring->queues, ring->queues_length);
  if (ring->entries != NULL) munmap(ring->entries, ring->entries_length);
  if (ring->control != NULL) munmap(ring->control, CONTROL_BYTES + ARENA_BYTES);
  ring->queues = ring->entries = ring->control = NULL;
}

static _Atomic uint32_t *queue_word(Ring *ring, uint32_t offset) {
  return (_Atomic uint32_t *)(ring->queues + offset);
}

/* Takes what is in the completion queue; returns how many requests ended by it. */
static uint32_t ring_drain(Ring *ring) {
  const struct io_cqring_offsets *off = &ring->params.cq_off;
  uint32_t head = atomic_load(queue_word(ring, off->head));
  uint32_t tail = atomic_load(queue_word(ring, off->tail));
  uint32_t mask = atomic_load(queue_word(ring, off->ring_mask));
  const struct io_uring_cqe *completions = (const struct io_uring_cqe *)(ring->queues + off->cqes);
  uint32_t ended = 0;
  for (; head != tail; head++)
    if ((completions[head & mask].flags & IORING_CQE_F_MORE) == 0) ended++;
  atomic_store(queue_word(ring, off->head), head);
  return ended;
}

static bool ring_has_completions(Ring *ring) {
  const struct io_cqring_offsets *off = &ring->params.cq_off;
  return atomic_load(queue_word(ring, off->head)) != atomic_load(queue_word(ring, off->tail));
}

/*
 * One turn of JavaScript, with what the kernel took of the entries that the turn before left to us. Back comes
 * how many entries it leaves to us this time, or LEAVE: the thread belongs to libuv's loop. When the call
 * returns, the callbacks of promises have run too.
 */
static int32_t ring_turn(Ring *ring, int32_t entered, bool leave) {
  napi_env env = ring->instance->env;
  napi_handle_scope scope;
  int32_t wanted = LEAVE;
  if (napi_open_handle_scope(env, &scope) != napi_ok) return LEAVE;
  napi_value receiver, callback, args[2], result, error;
  if (napi_get_global(env, &receiver) == napi_ok &&
      napi_get_reference_value(env, ring->callback, &callback) == napi_ok &&
      napi_create_int32(env, entered, &args[0]) == napi_ok && napi_create_int32(env, leave, &args[1]) == napi_ok) {
    napi_status status = napi_make_callback(env, ring->context, receiver, callback, 2, args, &result);
    if (status == napi_pending_exception) {
      if (napi_get_and_clear_last_exception(env, &error) == napi_ok) napi_fatal_exception(env, error);
    } else if (status == napi_ok && napi_get_value_int32(env, result, &wanted) != napi_ok) {
      wanted = LEAVE;
    }
  }
  napi_close_handle_scope(env, scope);
  return ring->closed ? LEAVE : wanted;
}

static uint64_t now_us(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void cpu_relax(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

/* Looks for a completion until `until`, without giving the CPU away. The kernel is entered only to run its work. */
static void ring_spin(Ring *ring, uint64_t until) {
  const _Atomic uint32_t *flags = queue_word(ring, ring->params.sq_off.flags);
  while (!ring_has_completions(ring) && now_us() < until) {
    if ((atomic_load(flags) & IORING_SQ_TASKRUN) != 0) ring_enter_once(ring, 0, 0);
    else
      for (int i = 0; i < SPIN_PAUSES; i++) cpu_relax();
  }
}

/*
 * Submits `count` entries and waits in the ring until something completes, unless libuv's loop has something to
 * do, and no longer than until its next timer. False: leave the thread to that loop.
 *
 * Waking a thread costs more than serving a small request, so short waits are spun through. JavaScript says, in a word of
 * the control page, how long at most, and which of two kinds the wait is of (the lowest bit). How long really is learned for
 * each kind: twice as long as the last time while waits are no longer than that, not at all after one that was.
 */
static bool ring_wait(Ring *ring, uint32_t count, int32_t *entered) {
  uv_loop_t *loop = ring->poll.loop;
  uv_update_time(loop);
  int idle_ms = uv_backend_timeout(loop);
  if (idle_ms < 0 || idle_ms > WAIT_MS_MAX) idle_ms = WAIT_MS_MAX;
  *entered = count > 0 ? ring_enter_once(ring, count, 0) : 0;
  if (*entered > 0) ring->submitted += (uint32_t)*entered;
  if (idle_ms == 0 || *entered < 0) return false;
  if (ring_has_completions(ring)) return true;
  uint64_t begun = now_us();
  uint32_t word = atomic_load((_Atomic uint32_t *)ring->control + CONTROL_SPIN), most = word >> 1;
  uint32_t *learned = &ring->spin_us[word & 1];
  uint32_t spin_us = *learned < most ? *learned : most;
  if (spin_us > 0) ring_spin(ring, begun + spin_us);
  if (!ring_has_completions(ring)) ring_enter_once(ring, 0, (unsigned)idle_ms * 1000);
  bool was_short = now_us() - begun <= most;
  uint32_t longer = *learned == 0 ? SPIN_US_FIRST : *learned * 2;
  if (most > 0) *learned = !was_short ? 0 : longer < most ? longer : most;
  return ring_has_completions(ring);
}

/*
 * While requests come and go the thread waits for the ring here and not in libuv's epoll, which takes five system
 * calls for each wake-up: two epoll_wait, one interrupted by the completion, the bell's read, io_uring_enter.
 * JavaScript has the ring poll libuv's own
 * descriptor, so that its events end the sleep like any other completion.
 */
static void on_bell(uv_poll_t *poll, int status, int events) {
  (void)status, (void)events;
  Ring *ring = poll->data;
  uint64_t count;
  ssize_t got = read(ring->bell, &count, sizeof count);
  (void)got;
  int32_t entered = 0, wanted;
  bool leave = false;
  while ((wanted = ring_turn(ring, entered, leave)) != LEAVE) leave = !ring_wait(ring, (uint32_t)wanted, &entered);
}

/* Cancels what can be cancelled and waits for the rest. False: something is still in flight. */
static bool ring_quiesce(Ring *ring) {
  uint32_t outstanding = ring->submitted - ((_Atomic uint32_t *)ring->control)[0];
  outstanding -= ring_drain(ring);
  for (int round = 0; outstanding != 0 && round < TEARDOWN_ROUNDS_MAX; round++) {
    struct io_uring_sync_cancel_reg cancel = {
        .fd = -1,
        .flags = IORING_ASYNC_CANCEL_ALL | IORING_ASYNC_CANCEL_ANY,
        .timeout = {.tv_sec = 0, .tv_nsec = TEARDOWN_ROUND_MS * 1000000L},
    };
    ring_register(ring->fd, IORING_REGISTER_SYNC_CANCEL, &cancel, 1);
    if (ring_enter_once(ring, 0, TEARDOWN_ROUND_MS * 1000) < 0) break;
    outstanding -= ring_drain(ring);
  }
  return outstanding == 0;
}

/*
 * Ends a ring. On a worker the process goes on, so the memory may be unmapped (and the pool's pages used by
 * another thread) only when the kernel has let go of it. If a device hangs for longer than we wait, the
 * mapping is leaked on purpose. On the main thread the process ends and the kernel keeps the pages by itself.
 */
void ring_teardown(Instance *instance, uint32_t slot) {
  Ring *ring = instance->rings[slot];
  if (ring == NULL) return;
  instance->rings[slot] = NULL;
  ring->closed = true;
  bool process_ends = instance->ending && getpid() == gettid();
  bool quiet = process_ends || ring_quiesce(ring);
  ring_conceal(ring);
  uv_poll_stop(&ring->poll);
  ring_register(ring->fd, IORING_UNREGISTER_EVENTFD, NULL, 0);
  close(ring->fd);
  if (quiet) {
    ring_unmap(ring);
  } else {
    for (uint32_t i = 0; i < MEMORIES_MAX; i++) instance->memories[i].base = NULL;
  }
  instance->closing++;
  uv_close((uv_handle_t *)&ring->poll, on_poll_closed);
}

static int ring_map(Ring *ring) {
  struct io_uring_params *params = &ring->params;
  size_t submissions = params->sq_off.array + params->sq_entries * sizeof(uint32_t);
  size_t completions = params->cq_off.cqes + params->cq_entries * sizeof(struct io_uring_cqe);
  ring->queues_length = submissions > completions ? submissions : completions;
  ring->entries_length = params->sq_entries * sizeof(struct io_uring_sqe);
  const int prot = PROT_READ | PROT_WRITE;
  void *queues = mmap(NULL, ring->queues_length, prot, MAP_SHARED | MAP_POPULATE, ring->fd, IORING_OFF_SQ_RING);
  if (queues == MAP_FAILED) return -errno;
  ring->queues = queues;
  void *entries = mmap(NULL, ring->entries_length, prot, MAP_SHARED | MAP_POPULATE, ring->fd, IORING_OFF_SQES);
  if (entries == MAP_FAILED) return -errno;
  ring->entries = entries;
  void *control = mmap(NULL, CONTROL_BYTES + ARENA_BYTES, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (control == MAP_FAILED) return -errno;
  ring->control = control;
  /* Entries are always used in ring order, so the indirection is filled once. */
  uint32_t *array = (uint32_t *)(ring->queues + params->sq_off.array);
  for (uint32_t i = 0; i < params->sq_entries; i++) array[i] = i;
  return 0;
}

static int ring_make(Ring *ring, uint32_t entries, uint32_t completions, uint32_t flags) {
  ring->params = (struct io_uring_params){
      .flags = flags | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP,
      .cq_entries = completions,
  };
  ring->fd = ring_setup(entries, &ring->params);
  if (ring->fd < 0) return -errno;
  const uint32_t needed = IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP | IORING_FEAT_SUBMIT_STABLE |
                          IORING_FEAT_FAST_POLL | IORING_FEAT_EXT_ARG;
  if ((ring->params.features & needed) != needed) return -ENOSYS;
  int result = ring_map(ring);
  if (result < 0) return result;
  ring->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (ring->bell < 0) return -errno;
  if (ring_register(ring->fd, IORING_REGISTER_EVENTFD, &ring->bell, 1) < 0) return -errno;
  return 0;
}

static void ring_abandon(Ring *ring) {
  ring_unmap(ring);
  if (ring->bell >= 0) close(ring->bell);
  if (ring->fd >= 0) close(ring->fd);
  free(ring);
}

static bool ring_expose(napi_env env, Ring *ring, napi_value callback, napi_value *out) {
  napi_value name, queues, entries, control, object;
  if (napi_create_reference(env, callback, 1, &ring->callback) != napi_ok) return false;
  if (napi_create_string_utf8(env, "lamina:ring", NAPI_AUTO_LENGTH, &name) != napi_ok) return false;
  if (napi_async_init(env, NULL, name, &ring->context) != napi_ok) return false;
  if (!expose_memory(env, ring->queues, ring->queues_length, &queues, &ring->queues_buffer) ||
      !expose_memory(env, ring->entries, ring->entries_length, &entries, &ring->entries_buffer) ||
      !expose_memory(env, ring->control, CONTROL_BYTES + ARENA_BYTES, &control, &ring->control_buffer) ||
      napi_create_object(env, &object) != napi_ok)
    return false;
  set_value(env, object, "queues", queues);
  set_value(env, object, "entries", entries);
  set_value(env, object, "control", control);
  set_number(env, object, "arenaAddress", (double)(uintptr_t)(ring->control + CONTROL_BYTES));
  set_number(env, object, "arenaOffset", CONTROL_BYTES);
  set_number(env, object, "arenaBytes", ARENA_BYTES);
  const struct io_uring_params *params = &ring->params;
  set_number(env, object, "sqEntries", params->sq_entries);
  set_number(env, object, "sqHead", params->sq_off.head);
  set_number(env, object, "sqTail", params->sq_off.tail);
  set_number(env, object, "sqFlags", params->sq_off.flags);
  set_number(env, object, "cqEntries", params->cq_entries);
  set_number(env, object, "cqHead", params->cq_off.head);
  set_number(env, object, "cqTail", params->cq_off.tail);
  set_number(env, object, "cqFlags", params->cq_off.flags);
  set_number(env, object, "cqes", params->cq_off.cqes);
  *out = object;
  return true;
}

/*
 * ringCreate(entries, completions, flags, onBell): the ring's parts as an object, or -errno.
 * onBell(entered, leave) answers how many entries it leaves to be submitted before the thread sleeps in the
 * ring, or LEAVE. `entered`: how many of those of the last time the kernel took, or -errno. With `leave` it must
 * answer LEAVE, with the bell switched on.
 */
static napi_value ring_create(napi_env env, napi_callback_info info) {
  napi_value args[4];
  Instance *instance;
  uint32_t entries, completions, flags, slot = 0;
  if (!arguments_get(env, info, 4, args, &instance) || !get_u32(env, args[0], &entries) ||
      !get_u32(env, args[1], &completions) || !get_u32(env, args[2], &flags))
    return NULL;
  while (slot < RINGS_MAX && instance->rings[slot] != NULL) slot++;
  if (slot == RINGS_MAX) return make_number(env, -EMFILE);
  Ring *ring = calloc(1, sizeof *ring);
  if (ring == NULL) return make_number(env, -ENOMEM);
  ring->instance = instance;
  ring->fd = ring->bell = -1;
  int result = ring_make(ring, entries, completions, flags);
  uv_loop_t *loop = NULL;
  if (result == 0 && (napi_get_uv_event_loop(env, &loop) != napi_ok || uv_poll_init(loop, &ring->poll, ring->bell)))
    result = -EINVAL;
  if (result < 0) {
    ring_abandon(ring);
    return make_number(env, result);
  }
  ring->poll.data = ring;
  instance->rings[slot] = ring;
  napi_value object;
  if (!ring_expose(env, ring, args[3], &object) || uv_poll_start(&ring->poll, UV_READABLE, on_bell) != 0) {
    ring_teardown(instance, slot);
    return make_number(env, -ENOMEM);
  }
  uv_unref((uv_handle_t *)&ring->poll);
  set_number(env, object, "id", slot);
  set_number(env, object, "loopFd", uv_backend_fd(loop));
  return object;
}

static Ring *ring_of(Instance *instance, uint32_t slot) {
  return slot < RINGS_MAX ? instance->rings[slot] : NULL;
}

/* ringEnter(id, count, waitMicros): entries the kernel has taken, or -errno */
static napi_value ring_enter(napi_env env, napi_callback_info info) {
  napi_value args[3];
  Instance *instance;
  uint32_t slot, count, wait_us;
  if (!arguments_get(env, info, 3, args, &instance) || !get_u32(env, args[0], &slot) ||
      !get_u32(env, args[1], &count) || !get_u32(env, args[2], &wait_us))
    return NULL;
  Ring *ring = ring_of(instance, slot);
  if (ring == NULL) return make_number(env, -EBADF);
  int taken = ring_enter_once(ring, count, wait_us);
  if (taken > 0) ring->submitted += (uint32_t)taken;
  napi_value out = NULL;
  napi_create_int32(env, taken, &out);
  return out;
}

/* ringHold(id, hold): whether the ring keeps the process alive */
static napi_value ring_hold(napi_env env, napi_callback_info info) {
  napi_value args[2];
  Instance *instance;
  uint32_t slot, hold;
  if (!arguments_get(env, info, 2, args, &instance) || !get_u32(env, args[0], &slot) ||
      !get_u32(env, args[1], &hold))
    return NULL;
  Ring *ring = ring_of(instance, slot);
  if (ring == NULL) return make_number(env, -EBADF);
  if (hold != 0) uv_ref((uv_handle_t *)&ring->poll);
  else uv_unref((uv_handle_t *)&ring->poll);
  return make_number(env, 0);
}

/* ringClose(id): waits for what is in flight (there should be nothing), then unmaps */
static napi_value ring_close(napi_env env, napi_callback_info info) {
  napi_value args[1];
  Instance *instance;
  uint32_t slot;
  if (!arguments_get(env, info, 1, args, &instance) || !get_u32(env, args[0], &slot)) return NULL;
  if (ring_of(instance, slot) == NULL) return make_number(env, -EBADF);
  ring_teardown(instance, slot);
  return make_number(env, 0);
}

const Method RING_METHODS[] = {
    {"ringCreate", ring_create},
    {"ringEnter", ring_enter},
    {"ringHold", ring_hold},
    {"ringClose", ring_close},
    {NULL, NULL},
};
