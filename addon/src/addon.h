/*
 * The addon: what JavaScript cannot do itself, and nothing more.
 *
 * Rules that hold for every file here
 *  1. No mutable statics. Everything belongs to an Instance, one per environment (main thread or worker), so
 *     that the addon can be loaded by any number of workers.
 *  2. Policy is TypeScript's. A function here makes one system call, or fills one structure, and returns a
 *     number: >= 0, or -errno. It throws only when it was called with the wrong types, which is a mistake of
 *     the caller.
 *  3. Functions that run per request take numbers only, and return a number.
 *  4. Memory the kernel may still touch outlives every request: see ring_teardown.
 */
#ifndef LAMINA_ADDON_H
#define LAMINA_ADDON_H

#include <node_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "crc32c.h"

/* Rings and memories of one environment. A program needs one of each; tests open several. */
enum { RINGS_MAX = 16, MEMORIES_MAX = 16 };
/* Blocks of one checksumBlocks call: one pool buffer of 1 MiB. */
enum { CHECKSUM_WINDOW = 256 };

typedef struct Ring Ring;

/* A mapping that JavaScript sees as an ArrayBuffer. Slot is free when base is NULL. */
typedef struct {
  uint8_t *base;
  size_t length;
  napi_ref buffer;
} Memory;

typedef struct {
  napi_env env;
  Ring *rings[RINGS_MAX];
  Memory memories[MEMORIES_MAX];
  Crc32c crc32c;
  uint32_t window[CHECKSUM_WINDOW];
  napi_ref window_buffer;
  /* uv handles that are closing; the instance may be freed when it is 0 and the environment ends. */
  unsigned closing;
  bool ending;
  napi_async_cleanup_hook_handle hook;
} Instance;

/* values.c: JavaScript values in and out. A false return means an exception is pending. */
bool arguments_get(napi_env env, napi_callback_info info, size_t want, napi_value *args, Instance **instance);
bool get_u32(napi_env env, napi_value value, uint32_t *out);
bool get_i32(napi_env env, napi_value value, int32_t *out);
bool get_i64(napi_env env, napi_value value, int64_t *out);
bool get_text(napi_env env, napi_value value, char *out, size_t capacity);
napi_value make_number(napi_env env, double value);
napi_value make_text(napi_env env, const char *text);
void set_number(napi_env env, napi_value object, const char *name, double value);
void set_value(napi_env env, napi_value object, const char *name, napi_value value);
/* An ArrayBuffer over memory that the instance owns; `ref` keeps it so that it can be detached. */
bool expose_memory(napi_env env, void *base, size_t length, napi_value *buffer, napi_ref *ref);
/* Makes the ArrayBuffer zero bytes long, so that JavaScript cannot reach what is about to be unmapped. */
void conceal_memory(Instance *instance, napi_ref *ref);

typedef struct {
  const char *name;
  napi_callback function;
} Method;

/* Each room's exported functions. */
extern const Method MEMORY_METHODS[], RING_METHODS[], FILE_METHODS[], SOCKET_METHODS[], DATAGRAM_METHODS[],
    CHECKSUM_METHODS[], BELL_METHODS[];
napi_value constants_object(napi_env env);

/* memory.c: NULL, with nothing pending, when the range is not inside the memory. */
uint8_t *memory_at(Instance *instance, uint32_t memory, int64_t offset, int64_t length);
void memory_release(Instance *instance, Memory *memory);

/* ring.c */
void ring_teardown(Instance *instance, uint32_t slot);
/* module.c: called when a uv handle of the instance has closed. */
void instance_handle_closed(Instance *instance);

#endif
