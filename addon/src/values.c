#include "addon.h"

#include <stdlib.h>

static bool throw_type(napi_env env, const char *what) {
  bool pending = false;
  napi_is_exception_pending(env, &pending);
  if (!pending) napi_throw_type_error(env, "LAMINA_ADDON", what);
  return false;
}

bool arguments_get(napi_env env, napi_callback_info info, size_t want, napi_value *args,
                   Instance **instance) {
  size_t count = want;
  void *data = NULL;
  if (napi_get_cb_info(env, info, &count, args, NULL, &data) != napi_ok || count < want)
    return throw_type(env, "too few arguments");
  *instance = data;
  return true;
}

bool get_u32(napi_env env, napi_value value, uint32_t *out) {
  return napi_get_value_uint32(env, value, out) == napi_ok || throw_type(env, "expected a number");
}

bool get_i32(napi_env env, napi_value value, int32_t *out) {
  return napi_get_value_int32(env, value, out) == napi_ok || throw_type(env, "expected a number");
}

bool get_i64(napi_env env, napi_value value, int64_t *out) {
  return napi_get_value_int64(env, value, out) == napi_ok || throw_type(env, "expected a number");
}

bool get_text(napi_env env, napi_value value, char *out, size_t capacity) {
  size_t length = 0;
  if (napi_get_value_string_utf8(env, value, NULL, 0, &length) != napi_ok)
    return throw_type(env, "expected a string");
  if (length >= capacity) return throw_type(env, "string too long");
  return napi_get_value_string_utf8(env, value, out, capacity, &length) == napi_ok ||
         throw_type(env, "expected a string");
}

napi_value make_number(napi_env env, double value) {
  napi_value out = NULL;
  napi_create_double(env, value, &out);
  return out;
}

napi_value make_text(napi_env env, const char *text) {
  napi_value out = NULL;
  napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &out);
  return out;
}

void set_value(napi_env env, napi_value object, const char *name, napi_value value) {
  napi_set_named_property(env, object, name, value);
}

void set_number(napi_env env, napi_value object, const char *name, double value) {
  set_value(env, object, name, make_number(env, value));
}

/* The memory belongs to the instance, not to the ArrayBuffer: nothing to do when that is collected. */
static void leave_memory(napi_env env, void *data, void *hint) {
  (void)env, (void)data, (void)hint;
}

bool expose_memory(napi_env env, void *base, size_t length, napi_value *buffer, napi_ref *ref) {
  return napi_create_external_arraybuffer(env, base, length, leave_memory, NULL, buffer) == napi_ok &&
         napi_create_reference(env, *buffer, 1, ref) == napi_ok;
}

void conceal_memory(Instance *instance, napi_ref *ref) {
  if (*ref == NULL) return;
  napi_env env = instance->env;
  napi_handle_scope scope;
  /* At the end of an environment no JavaScript runs any more: the reference only has to be given back. */
  if (!instance->ending && napi_open_handle_scope(env, &scope) == napi_ok) {
    napi_value buffer;
    if (napi_get_reference_value(env, *ref, &buffer) == napi_ok && buffer != NULL)
      napi_detach_arraybuffer(env, buffer);
    napi_close_handle_scope(env, scope);
  }
  napi_delete_reference(env, *ref);
  *ref = NULL;
}
