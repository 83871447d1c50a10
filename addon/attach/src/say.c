#include "say.h"

#include <stdarg.h>
#include <stdio.h>

static void fill(struct failure *why, enum exit_code code, const char *next, const char *format,
                 va_list args) {
  why->code = code;
  vsnprintf(why->cause, sizeof why->cause, format, args);
  snprintf(why->next, sizeof why->next, "%s", next == NULL ? "" : next);
}

bool fail(struct failure *why, const char *next, const char *format, ...) {
  va_list args;
  va_start(args, format);
  fill(why, EXIT_FAILED, next, format, args);
  va_end(args);
  return false;
}

bool fail_usage(struct failure *why, const char *next, const char *format, ...) {
  va_list args;
  va_start(args, format);
  fill(why, EXIT_USAGE, next, format, args);
  va_end(args);
  return false;
}

int report(const struct failure *why) {
  fprintf(stderr, "lamina-attach: %s\n", why->cause);
  if (why->next[0] != '\0') fprintf(stderr, "  next: %s\n", why->next);
  return why->code;
}

void note(const char *format, ...) {
  /* One write for one line: workers of the monitor speak at the same time. */
  char line[1024];
  va_list args;
  va_start(args, format);
  int length = vsnprintf(line, sizeof line - 1, format, args);
  va_end(args);
  if (length < 0) return;
  if ((size_t)length > sizeof line - 2) length = sizeof line - 2;
  line[length] = '\n';
  fwrite(line, 1, (size_t)length + 1, stderr);
}
