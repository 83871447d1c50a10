/*
 * Memory that the kernel reads and writes directly. It is private to the process, not a memfd, because only then
 * do kernels as distributions configure them back it with huge pages: a direct request of 128 KiB is one piece of
 * memory for the device then, instead of 32 pages to look up one by one. Threads share it by its address: a
 * trailer behind the last byte counts who uses it, and the last one unmaps it.
 */
#include "addon.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/mman.h>

enum { HUGE_PAGE_BYTES = 2 << 20, TRAILER_BYTES = 4096, TRAILER_MAGIC = 0x4c504f4c };

typedef struct {
  uint32_t magic;
  _Atomic uint32_t users;
  size_t length;
} Trailer;

static Trailer *trailer_of(uint8_t *base, size_t length) {
  return (Trailer *)(base + length);
}

uint8_t *memory_at(Instance *instance, uint32_t memory, int64_t offset, int64_t length) {
  if (memory >= MEMORIES_MAX) return NULL;
  Memory *m = &instance->memories[memory];
  int64_t capacity = (int64_t)m->length;
  if (m->base == NULL || offset < 0 || length < 0 || length > capacity || offset > capacity - length)
    return NULL;
  return m->base + offset;
}

void memory_release(Instance *instance, Memory *memory) {
  conceal_memory(instance, &memory->buffer);
  if (memory->base == NULL) return;
  Trailer *trailer = trailer_of(memory->base, memory->length);
  if (atomic_fetch_sub(&trailer->users, 1) == 1) munmap(memory->base, memory->length + TRAILER_BYTES);
  *memory = (Memory){0};
}

/* Zeroed memory that begins at a huge page, or NULL. */
static uint8_t *map_aligned(size_t length) {
  const int prot = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS;
  size_t mapped = length + TRAILER_BYTES + HUGE_PAGE_BYTES;
  uint8_t *whole = mmap(NULL, mapped, prot, flags, -1, 0);
  if (whole == MAP_FAILED) return NULL;
  size_t before = -(uintptr_t)whole & (HUGE_PAGE_BYTES - 1);
  size_t after = HUGE_PAGE_BYTES - before;
  if (before > 0) munmap(whole, before);
  if (after > 0) munmap(whole + mapped - after, after);
  uint8_t *base = whole + before;
  madvise(base, length, MADV_HUGEPAGE);
  /* A child would get copies of pages that the kernel is writing to. */
  madvise(base, length + TRAILER_BYTES, MADV_DONTFORK);
  return base;
}

/* Gives `base`, which has one user more for it, to JavaScript; takes that user back when it cannot. */
static napi_value memory_expose(napi_env env, Instance *instance, uint8_t *base, size_t length) {
  uint32_t slot = 0;
  while (slot < MEMORIES_MAX && instance->memories[slot].base != NULL) slot++;
  Memory full = {.base = base, .length = length};
  if (slot == MEMORIES_MAX) {
    memory_release(instance, &full);
    return make_number(env, -EMFILE);
  }
  Memory *memory = &instance->memories[slot];
  *memory = full;
  napi_value object, buffer;
  if (napi_create_object(env, &object) != napi_ok ||
      !expose_memory(env, base, length, &buffer, &memory->buffer)) {
    memory_release(instance, memory);
    return make_number(env, -ENOMEM);
  }
  set_number(env, object, "id", slot);
  /* Below 2^47 on every platform we know, so a double holds it exactly. */
  set_number(env, object, "address", (double)(uintptr_t)base);
  set_value(env, object, "buffer", buffer);
  return object;
}

/* memoryCreate(bytes): {id, address, buffer} or -errno */
static napi_value memory_create(napi_env env, napi_callback_info info) {
  napi_value args[1];
  Instance *instance;
  int64_t length;
  if (!arguments_get(env, info, 1, args, &instance) || !get_i64(env, args[0], &length)) return NULL;
  if (length <= 0 || length % TRAILER_BYTES != 0) return make_number(env, -EINVAL);
  uint8_t *base = map_aligned((size_t)length);
  if (base == NULL) return make_number(env, -errno);
  Trailer *trailer = trailer_of(base, (size_t)length);
  trailer->magic = TRAILER_MAGIC;
  trailer->length = (size_t)length;
  atomic_store(&trailer->users, 1);
  return memory_expose(env, instance, base, (size_t)length);
}

/*
 * memoryAttach(address, bytes): the memory of another thread of this process, which must have it open until this
 * call is over; afterwards it may close it.
 */
static napi_value memory_attach(napi_env env, napi_callback_info info) {
  napi_value args[2];
  Instance *instance;
  int64_t address, length;
  if (!arguments_get(env, info, 2, args, &instance) || !get_i64(env, args[0], &address) ||
      !get_i64(env, args[1], &length))
    return NULL;
  if (address <= 0 || length <= 0) return make_number(env, -EINVAL);
  uint8_t *base = (uint8_t *)(uintptr_t)address;
  Trailer *trailer = trailer_of(base, (size_t)length);
  if (trailer->magic != TRAILER_MAGIC || trailer->length != (size_t)length) return make_number(env, -EINVAL);
  atomic_fetch_add(&trailer->users, 1);
  return memory_expose(env, instance, base, (size_t)length);
}

/* memoryClose(id): nothing may be in flight to it. */
static napi_value memory_close(napi_env env, napi_callback_info info) {
  napi_value args[1];
  Instance *instance;
  uint32_t slot;
  if (!arguments_get(env, info, 1, args, &instance) || !get_u32(env, args[0], &slot)) return NULL;
  if (slot >= MEMORIES_MAX || instance->memories[slot].base == NULL) return make_number(env, -EBADF);
  memory_release(instance, &instance->memories[slot]);
  return make_number(env, 0);
}

const Method MEMORY_METHODS[] = {
    {"memoryCreate", memory_create},
    {"memoryAttach", memory_attach},
    {"memoryClose", memory_close},
    {NULL, NULL},
};
