/*
 * One Instance per environment, and its end.
 *
 * An environment ends while requests are in flight (worker.terminate, process.exit). The cleanup hook tears
 * the rings down, which waits for the kernel to let go of our memory, and starts closing their uv handles; the
 * hook is given back only from the last close callback. Giving it back earlier lets Node free the loop under
 * a handle that is still linked into it.
 */
#include "addon.h"

#include <stdlib.h>

static void instance_free(Instance *instance) {
  for (uint32_t i = 0; i < MEMORIES_MAX; i++) memory_release(instance, &instance->memories[i]);
  conceal_memory(instance, &instance->window_buffer);
  napi_async_cleanup_hook_handle hook = instance->hook;
  free(instance);
  napi_remove_async_cleanup_hook(hook);
}

void instance_handle_closed(Instance *instance) {
  instance->closing--;
  if (instance->ending && instance->closing == 0) instance_free(instance);
}

static void instance_end(napi_async_cleanup_hook_handle hook, void *data) {
  (void)hook;
  Instance *instance = data;
  instance->ending = true;
  /* Holds the instance while rings are torn down one by one. */
  instance->closing++;
  for (uint32_t i = 0; i < RINGS_MAX; i++) ring_teardown(instance, i);
  instance_handle_closed(instance);
}

static bool export_methods(napi_env env, napi_value exports, const Method *methods, Instance *instance) {
  for (; methods->name != NULL; methods++) {
    napi_value function;
    if (napi_create_function(env, methods->name, NAPI_AUTO_LENGTH, methods->function, instance, &function) !=
        napi_ok)
      return false;
    if (napi_set_named_property(env, exports, methods->name, function) != napi_ok) return false;
  }
  return true;
}

static napi_value module_init(napi_env env, napi_value exports) {
  Instance *instance = calloc(1, sizeof *instance);
  if (instance == NULL) {
    napi_throw_error(env, "LAMINA_ADDON", "out of memory");
    return NULL;
  }
  instance->env = env;
  instance->crc32c = crc32c_fastest();
  if (napi_add_async_cleanup_hook(env, instance_end, instance, &instance->hook) != napi_ok) {
    free(instance);
    napi_throw_error(env, "LAMINA_ADDON", "the environment is ending");
    return NULL;
  }
  const Method *const rooms[] = {MEMORY_METHODS, RING_METHODS,     FILE_METHODS, SOCKET_METHODS,
                                 DATAGRAM_METHODS, CHECKSUM_METHODS, BELL_METHODS};
  for (size_t i = 0; i < sizeof rooms / sizeof rooms[0]; i++)
    if (!export_methods(env, exports, rooms[i], instance)) return NULL;
  set_value(env, exports, "constants", constants_object(env));
  return exports;
}

NAPI_MODULE(NODE_GYP_MODULE_NAME, module_init)
