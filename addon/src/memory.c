/*
 * Memory that the kernel reads and writes directly: a memfd mapped shared, so that every thread can map the
 * same pages for itself and a buffer has one offset everywhere.
 */
#include "addon.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

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
  munmap(memory->base, memory->length);
  if (memory->fd >= 0) close(memory->fd);
  *memory = (Memory){.fd = -1};
}

static napi_value memory_map(napi_env env, Instance *instance, int fd, bool owned, int64_t length) {
  uint32_t slot = 0;
  while (slot < MEMORIES_MAX && instance->memories[slot].base != NULL) slot++;
  int error = slot == MEMORIES_MAX ? EMFILE : 0;
  void *base = MAP_FAILED;
  if (error == 0) {
    base = mmap(NULL, (size_t)length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) error = errno;
  }
  if (error != 0) {
    if (owned) close(fd);
    return make_number(env, -error);
  }
  /* Fewer TLB misses and fewer pages to pin per request, where the kernel grants it for shared memory. */
  madvise(base, (size_t)length, MADV_HUGEPAGE);
  madvise(base, (size_t)length, MADV_DONTFORK);
  Memory *memory = &instance->memories[slot];
  *memory = (Memory){.base = base, .length = (size_t)length, .fd = owned ? fd : -1};
  napi_value object, buffer;
  if (napi_create_object(env, &object) != napi_ok ||
      !expose_memory(env, base, (size_t)length, &buffer, &memory->buffer)) {
    memory_release(instance, memory);
    return make_number(env, -ENOMEM);
  }
  set_number(env, object, "id", slot);
  set_number(env, object, "fd", fd);
  /* Below 2^47 on every platform we know, so a double holds it exactly. */
  set_number(env, object, "address", (double)(uintptr_t)base);
  set_value(env, object, "buffer", buffer);
  return object;
}

/* memoryCreate(bytes): {id, fd, address, buffer} or -errno */
static napi_value memory_create(napi_env env, napi_callback_info info) {
  napi_value args[1];
  Instance *instance;
  int64_t length;
  if (!arguments_get(env, info, 1, args, &instance) || !get_i64(env, args[0], &length)) return NULL;
  if (length <= 0) return make_number(env, -EINVAL);
  int fd = memfd_create("lamina-pool", MFD_CLOEXEC);
  if (fd < 0) return make_number(env, -errno);
  if (ftruncate(fd, length) != 0) {
    int error = errno;
    close(fd);
    return make_number(env, -error);
  }
  return memory_map(env, instance, fd, true, length);
}

/* memoryAttach(fd, bytes): the same pages, mapped by another thread. The creator keeps the descriptor. */
static napi_value memory_attach(napi_env env, napi_callback_info info) {
  napi_value args[2];
  Instance *instance;
  int32_t fd;
  int64_t length;
  if (!arguments_get(env, info, 2, args, &instance) || !get_i32(env, args[0], &fd) ||
      !get_i64(env, args[1], &length))
    return NULL;
  struct stat status;
  if (fstat(fd, &status) != 0) return make_number(env, -errno);
  if (length <= 0 || status.st_size < length) return make_number(env, -EINVAL);
  return memory_map(env, instance, fd, false, length);
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
