/*
 * How this program speaks: a failure is what is wrong and what to do next, each one clause.
 */
#ifndef LAMINA_ATTACH_SAY_H
#define LAMINA_ATTACH_SAY_H

#include <stdbool.h>

enum exit_code { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 64 };

#define CAUSE_MAX 512
#define NEXT_MAX 256

struct failure {
  enum exit_code code;
  char cause[CAUSE_MAX];
  /* Empty when there is nothing useful to advise. */
  char next[NEXT_MAX];
};

/* Fills `why` and returns false, so that a function can end with `return fail(…)`. `next` may be NULL. */
bool fail(struct failure *why, const char *next, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The same for a mistake in the command line. */
bool fail_usage(struct failure *why, const char *next, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* "lamina-attach: cause" and "  next: …" on standard error; returns the exit code. */
int report(const struct failure *why);
/* One line on standard error; the monitor's log. */
void note(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
