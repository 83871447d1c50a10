#include "json.h"

#include <string.h>

struct reader {
  const char *at;
  char key[JSON_TEXT_MAX];
  char text[JSON_TEXT_MAX];
};

static void skip_space(struct reader *reader) { reader->at += strspn(reader->at, " \t\r\n"); }

static bool take(struct reader *reader, char c) {
  skip_space(reader);
  if (*reader->at != c) return false;
  reader->at++;
  return true;
}

static bool take_word(struct reader *reader, const char *word) {
  size_t length = strlen(word);
  if (strncmp(reader->at, word, length) != 0) return false;
  reader->at += length;
  return true;
}

/* Only what json_write_string writes: escapes of ASCII characters. */
static bool take_escape(struct reader *reader, char *out) {
  char c = *reader->at++;
  if (c == '"' || c == '\\' || c == '/') {
    *out = c;
    return true;
  }
  if (c != 'u') return false;
  unsigned code = 0;
  for (int i = 0; i < 4; i++) {
    char digit = *reader->at;
    if (digit >= '0' && digit <= '9')
      code = code * 16 + (unsigned)(digit - '0');
    else if (digit >= 'a' && digit <= 'f')
      code = code * 16 + (unsigned)(digit - 'a' + 10);
    else
      return false;
    reader->at++;
  }
  *out = (char)code;
  return code != 0 && code < 0x80;
}

static bool take_string(struct reader *reader, char *out) {
  if (!take(reader, '"')) return false;
  size_t used = 0;
  for (;;) {
    char c = *reader->at;
    if (c == '\0' || used + 1 >= JSON_TEXT_MAX) return false;
    reader->at++;
    if (c == '"') break;
    if (c == '\\' && !take_escape(reader, &c)) return false;
    out[used++] = c;
  }
  out[used] = '\0';
  return true;
}

static bool take_number(struct reader *reader, uint64_t *out) {
  uint64_t value = 0;
  if (*reader->at < '0' || *reader->at > '9') return false;
  while (*reader->at >= '0' && *reader->at <= '9') {
    uint64_t digit = (uint64_t)(*reader->at++ - '0');
    if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, digit, &value))
      return false;
  }
  *out = value;
  return true;
}

static bool take_scalar(struct reader *reader, struct json_value *value) {
  skip_space(reader);
  value->text = NULL;
  value->number = 0;
  if (*reader->at == '"') {
    value->text = reader->text;
    return take_string(reader, reader->text);
  }
  if (take_word(reader, "true")) {
    value->number = 1;
    return true;
  }
  return take_word(reader, "false") || take_number(reader, &value->number);
}

static bool take_member(struct reader *reader, json_visitor *visit, void *context) {
  if (!take_string(reader, reader->key) || !take(reader, ':')) return false;
  struct json_value value = {.position = 0};
  if (!take(reader, '[')) {
    if (!take_scalar(reader, &value)) return false;
    visit(context, reader->key, &value);
    return true;
  }
  if (take(reader, ']')) return true;
  do {
    if (!take_scalar(reader, &value)) return false;
    visit(context, reader->key, &value);
    value.position++;
  } while (take(reader, ','));
  return take(reader, ']');
}

bool json_read(const char *text, json_visitor *visit, void *context) {
  struct reader reader = {.at = text};
  if (!take(&reader, '{')) return false;
  if (!take(&reader, '}')) {
    do {
      if (!take_member(&reader, visit, context)) return false;
    } while (take(&reader, ','));
    if (!take(&reader, '}')) return false;
  }
  skip_space(&reader);
  return *reader.at == '\0';
}

void json_write_string(FILE *to, const char *text) {
  fputc('"', to);
  for (const char *at = text; *at != '\0'; at++) {
    unsigned char c = (unsigned char)*at;
    if (c == '"' || c == '\\') fputc('\\', to);
    if (c < 0x20)
      fprintf(to, "\\u%04x", c);
    else
      fputc(c, to);
  }
  fputc('"', to);
}
