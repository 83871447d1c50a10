/*
 * The physical floor under three copies on one machine: one thread that writes each block to three files with O_DIRECT
 * over io_uring, and counts it when all three have it; reads come from the files by turns. No network, no checksum, no
 * metadata. What a store with three copies reaches is a share of this.
 *
 *   floor read|write random|sequential BLOCK_BYTES DEPTH SECONDS SIZE_BYTES FLUSH FILE FILE FILE
 *
 * FLUSH 1: each write is followed by an fdatasync of every file. The files exist and are SIZE_BYTES long. Prints
 * {"requests", "seconds", "p50Us", "p99Us", "p999Us"}.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { COPIES = 3, DEPTH_MAX = 256, SAMPLES_MAX = 1 << 24, ALIGNMENT = 4096 };

static struct {
  int fd;
  unsigned *sq_tail, *cq_head, *cq_tail;
  unsigned sq_mask, cq_mask, *sq_array;
  struct io_uring_sqe *sqes;
  struct io_uring_cqe *cqes;
  unsigned to_submit;
} ring;

struct request {
  uint64_t begun;
  uint64_t offset;
  int left;
  int flushing;
};

static int files[COPIES];
static struct request requests[DEPTH_MAX];
static char *memory;
static uint32_t *samples;
static size_t sample_count;
static uint64_t state = 88172645463325252ull;

static int is_write, is_random, flushes;
static size_t block_bytes, size_bytes;
static uint64_t next_offset, completed;

static void die(const char *what) {
  fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
  exit(1);
}

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static uint64_t next_random(void) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state;
}

static void make_ring(unsigned entries) {
  struct io_uring_params p;
  memset(&p, 0, sizeof p);
  ring.fd = (int)syscall(SYS_io_uring_setup, entries, &p);
  if (ring.fd < 0) die("io_uring_setup");
  const size_t sq_bytes = p.sq_off.array + p.sq_entries * sizeof(unsigned);
  const size_t cq_bytes = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
  const size_t bytes = sq_bytes > cq_bytes ? sq_bytes : cq_bytes;
  char *rings = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring.fd, IORING_OFF_SQ_RING);
  ring.sqes = mmap(NULL, p.sq_entries * sizeof(struct io_uring_sqe), PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_POPULATE, ring.fd, IORING_OFF_SQES);
  if (rings == MAP_FAILED || ring.sqes == MAP_FAILED) die("mmap");
  ring.sq_tail = (unsigned *)(rings + p.sq_off.tail);
  ring.sq_mask = *(unsigned *)(rings + p.sq_off.ring_mask);
  ring.sq_array = (unsigned *)(rings + p.sq_off.array);
  ring.cq_head = (unsigned *)(rings + p.cq_off.head);
  ring.cq_tail = (unsigned *)(rings + p.cq_off.tail);
  ring.cq_mask = *(unsigned *)(rings + p.cq_off.ring_mask);
  ring.cqes = (struct io_uring_cqe *)(rings + p.cq_off.cqes);
}

static void submit(uint8_t opcode, int fd, unsigned place) {
  const struct request *r = &requests[place];
  const unsigned tail = *ring.sq_tail;
  const unsigned at = tail & ring.sq_mask;
  struct io_uring_sqe *sqe = &ring.sqes[at];
  memset(sqe, 0, sizeof *sqe);
  sqe->opcode = opcode;
  sqe->fd = fd;
  sqe->user_data = place;
  if (opcode == IORING_OP_FSYNC) {
    sqe->fsync_flags = IORING_FSYNC_DATASYNC;
  } else {
    sqe->off = r->offset;
    sqe->addr = (uintptr_t)(memory + place * block_bytes);
    sqe->len = (unsigned)block_bytes;
  }
  ring.sq_array[at] = at;
  __atomic_store_n(ring.sq_tail, tail + 1, __ATOMIC_RELEASE);
  ring.to_submit++;
}

static void begin(unsigned place) {
  struct request *r = &requests[place];
  r->begun = now();
  r->flushing = 0;
  if (is_random) {
    r->offset = next_random() % (size_bytes / block_bytes) * block_bytes;
  } else {
    r->offset = next_offset;
    next_offset = (next_offset + block_bytes) % (size_bytes / block_bytes * block_bytes);
  }
  if (!is_write) {
    r->left = 1;
    submit(IORING_OP_READ, files[next_random() % COPIES], place);
    return;
  }
  r->left = COPIES;
  for (int i = 0; i < COPIES; i++) submit(IORING_OP_WRITE, files[i], place);
}

/* True when the request is over. */
static int advance(unsigned place) {
  struct request *r = &requests[place];
  if (--r->left > 0) return 0;
  if (flushes && is_write && !r->flushing) {
    r->flushing = 1;
    r->left = COPIES;
    for (int i = 0; i < COPIES; i++) submit(IORING_OP_FSYNC, files[i], place);
    return 0;
  }
  if (sample_count < SAMPLES_MAX) samples[sample_count++] = (uint32_t)(now() - r->begun);
  completed++;
  return 1;
}

static void reap(int refill, unsigned *open) {
  unsigned head = *ring.cq_head;
  const unsigned tail = __atomic_load_n(ring.cq_tail, __ATOMIC_ACQUIRE);
  for (; head != tail; head++) {
    const struct io_uring_cqe *cqe = &ring.cqes[head & ring.cq_mask];
    const unsigned place = (unsigned)cqe->user_data;
    if (cqe->res < 0) {
      errno = -cqe->res;
      die("I/O");
    }
    if (!advance(place)) continue;
    if (refill) begin(place);
    else (*open)--;
  }
  __atomic_store_n(ring.cq_head, head, __ATOMIC_RELEASE);
}

static void enter(void) {
  const long taken = syscall(SYS_io_uring_enter, ring.fd, ring.to_submit, 1, IORING_ENTER_GETEVENTS, NULL, 0);
  if (taken < 0 && errno != EINTR) die("io_uring_enter");
  if (taken > 0) ring.to_submit -= (unsigned)taken;
}

static int ascending(const void *a, const void *b) {
  const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return x < y ? -1 : x > y;
}

static double percentile(double share) {
  if (sample_count == 0) return 0;
  return samples[(size_t)(share * (double)(sample_count - 1))] / 1000.0;
}

int main(int argc, char **argv) {
  if (argc != 8 + COPIES) {
    fprintf(stderr, "usage: floor read|write random|sequential BLOCK_BYTES DEPTH SECONDS SIZE_BYTES FLUSH FILE FILE FILE\n");
    return 64;
  }
  is_write = strcmp(argv[1], "write") == 0;
  is_random = strcmp(argv[2], "random") == 0;
  block_bytes = strtoull(argv[3], NULL, 10);
  const unsigned depth = (unsigned)strtoul(argv[4], NULL, 10);
  const double seconds = strtod(argv[5], NULL);
  size_bytes = strtoull(argv[6], NULL, 10);
  flushes = atoi(argv[7]);
  if (depth == 0 || depth > DEPTH_MAX || block_bytes == 0 || block_bytes % ALIGNMENT != 0 || size_bytes < block_bytes) {
    fprintf(stderr, "floor: a depth of 1 to %d, blocks of whole %d bytes\n", DEPTH_MAX, ALIGNMENT);
    return 64;
  }
  for (int i = 0; i < COPIES; i++) {
    files[i] = open(argv[8 + i], O_RDWR | O_DIRECT | O_CLOEXEC);
    if (files[i] < 0) die(argv[8 + i]);
  }
  if (posix_memalign((void **)&memory, ALIGNMENT, depth * block_bytes) != 0) die("memory");
  for (size_t i = 0; i < depth * block_bytes; i += 8) {
    const uint64_t word = next_random();
    memcpy(memory + i, &word, 8);
  }
  samples = malloc(SAMPLES_MAX * sizeof *samples);
  if (samples == NULL) die("memory");
  make_ring(DEPTH_MAX * COPIES);

  unsigned open = depth;
  const uint64_t start = now();
  const uint64_t end = start + (uint64_t)(seconds * 1e9);
  for (unsigned place = 0; place < depth; place++) begin(place);
  while (open > 0) {
    enter();
    reap(now() < end, &open);
  }
  const double took = (double)(now() - start) / 1e9;
  qsort(samples, sample_count, sizeof *samples, ascending);
  printf("{\"requests\":%llu,\"seconds\":%.4f,\"p50Us\":%.1f,\"p99Us\":%.1f,\"p999Us\":%.1f}\n",
         (unsigned long long)completed, took, percentile(0.5), percentile(0.99), percentile(0.999));
  return 0;
}
