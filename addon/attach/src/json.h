/*
 * Just enough JSON: one flat object whose members are strings, unsigned integers, true, false, or lists of
 * strings or unsigned integers. Anything else is malformed.
 */
#ifndef LAMINA_ATTACH_JSON_H
#define LAMINA_ATTACH_JSON_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* Characters of a key or a string, the terminating zero included. */
#define JSON_TEXT_MAX 2048

struct json_value {
  /* NULL for a number; numbers and truth values are in `number`. */
  const char *text;
  uint64_t number;
  /* Position in a list; 0 for a plain member. */
  unsigned position;
};

typedef void json_visitor(void *context, const char *key, const struct json_value *value);

/* Calls `visit` for each value, in order. False when the text is malformed; some values were visited then. */
bool json_read(const char *text, json_visitor *visit, void *context);

/* A string with its quotation marks. */
void json_write_string(FILE *to, const char *text);

#endif
