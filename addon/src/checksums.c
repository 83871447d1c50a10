/*
 * Checksums of pool memory: one call per request. Results of several blocks go to a small window of memory
 * that JavaScript sees, because a number argument costs a fraction of what unwrapping a typed array does.
 */
#include "addon.h"
#include "crc32c.h"

#include <errno.h>

enum { BLOCK_BYTES = 4096 };
/* Odd, so that no two blocks of an extent share a seed. The same as BLOCK_SEED_STEP in lib/core/checksum.ts. */
static const uint32_t BLOCK_SEED_STEP = 0x9e3779b1;

static napi_value make_u32(napi_env env, uint32_t value) {
  napi_value out = NULL;
  napi_create_uint32(env, value, &out);
  return out;
}

static napi_value checksum_by(napi_env env, napi_callback_info info, bool portable) {
  napi_value args[4];
  Instance *instance;
  uint32_t memory, seed;
  int64_t offset, length;
  if (!arguments_get(env, info, 4, args, &instance) || !get_u32(env, args[0], &memory) ||
      !get_i64(env, args[1], &offset) || !get_i64(env, args[2], &length) || !get_u32(env, args[3], &seed))
    return NULL;
  const uint8_t *bytes = memory_at(instance, memory, offset, length);
  if (bytes == NULL) return make_number(env, -EFAULT);
  Crc32c crc32c = portable ? crc32c_portable : instance->crc32c;
  return make_u32(env, crc32c(seed, bytes, (size_t)length));
}

/* checksum(memory, offset, length, seed): the crc32c, or -EFAULT */
static napi_value checksum(napi_env env, napi_callback_info info) {
  return checksum_by(env, info, false);
}

/* checksumPortable(...): the same without the processor's help, for comparison */
static napi_value checksum_portable(napi_env env, napi_callback_info info) {
  return checksum_by(env, info, true);
}

/* checksumBytes(Uint8Array, seed): the crc32c of bytes anywhere */
static napi_value checksum_bytes(napi_env env, napi_callback_info info) {
  napi_value args[2];
  Instance *instance;
  uint32_t seed;
  void *bytes = NULL;
  size_t length = 0;
  if (!arguments_get(env, info, 2, args, &instance) || !get_u32(env, args[1], &seed)) return NULL;
  if (napi_get_typedarray_info(env, args[0], NULL, &length, &bytes, NULL, NULL) != napi_ok) {
    napi_throw_type_error(env, "LAMINA_ADDON", "expected bytes");
    return NULL;
  }
  return make_u32(env, instance->crc32c(seed, bytes, length));
}

/*
 * checksumBlocks(memory, offset, count, extentSeed, firstBlock): entries of `count` blocks into the window;
 * 0 or -errno. The entry of a block is its crc32c, seeded by its address, mapped away from 0 and 1.
 */
static napi_value checksum_blocks(napi_env env, napi_callback_info info) {
  napi_value args[5];
  Instance *instance;
  uint32_t memory, count, extent_seed, first;
  int64_t offset;
  if (!arguments_get(env, info, 5, args, &instance) || !get_u32(env, args[0], &memory) ||
      !get_i64(env, args[1], &offset) || !get_u32(env, args[2], &count) || !get_u32(env, args[3], &extent_seed) ||
      !get_u32(env, args[4], &first))
    return NULL;
  if (count > CHECKSUM_WINDOW) return make_number(env, -EINVAL);
  const uint8_t *bytes = memory_at(instance, memory, offset, (int64_t)count * BLOCK_BYTES);
  if (bytes == NULL) return make_number(env, -EFAULT);
  for (uint32_t i = 0; i < count; i++) {
    uint32_t crc = instance->crc32c(extent_seed + (first + i) * BLOCK_SEED_STEP, bytes + (size_t)i * BLOCK_BYTES,
                                    BLOCK_BYTES);
    instance->window[i] = crc < 2 ? crc + 2 : crc;
  }
  return make_u32(env, 0);
}

/* checksumWindow(): the ArrayBuffer that checksumBlocks writes to */
static napi_value checksum_window(napi_env env, napi_callback_info info) {
  Instance *instance;
  napi_value none[1], buffer;
  if (!arguments_get(env, info, 0, none, &instance)) return NULL;
  if (instance->window_buffer == NULL) {
    if (!expose_memory(env, instance->window, sizeof instance->window, &buffer, &instance->window_buffer))
      return NULL;
    return buffer;
  }
  return napi_get_reference_value(env, instance->window_buffer, &buffer) == napi_ok ? buffer : NULL;
}

const Method CHECKSUM_METHODS[] = {
    {"checksum", checksum},
    {"checksumPortable", checksum_portable},
    {"checksumBytes", checksum_bytes},
    {"checksumBlocks", checksum_blocks},
    {"checksumWindow", checksum_window},
    {NULL, NULL},
};
