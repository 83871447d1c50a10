#include "uri.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "nbd-protocol.h"

extern char **environ;

static const char FORM[] = "write nbd://HOST[:PORT]/VOLUME or nbd+unix:///VOLUME?socket=/PATH";

static int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

/* Percent-decodes `length` characters. False when they do not fit or are malformed, or for a NUL. */
static bool decode(const char *from, size_t length, char *to, size_t size) {
  size_t used = 0;
  for (size_t i = 0; i < length; i++) {
    char c = from[i];
    if (c == '%') {
      if (length - i < 3) return false;
      int high = hex_digit(from[i + 1]);
      int low = hex_digit(from[i + 2]);
      if (high < 0 || low < 0) return false;
      c = (char)(high * 16 + low);
      i += 2;
    }
    if (c == '\0' || used + 1 >= size) return false;
    to[used++] = c;
  }
  to[used] = '\0';
  return true;
}

static bool parse_port(const char *text, unsigned *port) {
  char *end;
  if (text[0] < '0' || text[0] > '9') return false;
  unsigned long value = strtoul(text, &end, 10);
  if (*end != '\0' || value == 0 || value > 65535) return false;
  *port = (unsigned)value;
  return true;
}

bool parse_host_port(const char *text, char *host, size_t host_size, unsigned *port, struct failure *why) {
  *port = NBD_DEFAULT_PORT;
  const char *end = text + strlen(text);
  const char *after = NULL;
  const char *from = text;
  if (text[0] == '[') {
    const char *bracket = strchr(text, ']');
    if (bracket == NULL) return fail_usage(why, FORM, "'%s' is not a host", text);
    from = text + 1;
    end = bracket;
    if (bracket[1] != '\0') after = bracket + 1;
  } else {
    after = strrchr(text, ':');
    if (after != NULL && strchr(text, ':') != after) {
      return fail_usage(why, "write an IPv6 address in brackets", "'%s' is not a host and port", text);
    }
    if (after != NULL) end = after;
  }
  if (after != NULL && (after[0] != ':' || !parse_port(after + 1, port))) {
    return fail_usage(why, "use a port from 1 to 65535", "'%s' has no valid port", text);
  }
  if (end == from || !decode(from, (size_t)(end - from), host, host_size)) {
    return fail_usage(why, FORM, "'%s' names no host", text);
  }
  return true;
}

static bool parse_unix(const char *path, const char *query, struct uri *out, struct failure *why) {
  static const char key[] = "socket=";
  if (query == NULL || strncmp(query, key, sizeof key - 1) != 0 || strchr(query, '&') != NULL) {
    return fail_usage(why, FORM, "a unix URI needs exactly one parameter, socket");
  }
  char socket_path[ADDRESS_TEXT_MAX - 5];
  const char *value = query + sizeof key - 1;
  if (path[-1] != '/' || !decode(value, strlen(value), socket_path, sizeof socket_path) ||
      socket_path[0] != '/') {
    return fail_usage(why, "use an absolute path of at most 107 bytes", "the socket's path cannot be used");
  }
  snprintf(out->local.text, sizeof out->local.text, "unix:%s", socket_path);
  return true;
}

bool parse_uri(const char *text, struct uri *out, struct failure *why) {
  memset(out, 0, sizeof *out);
  size_t length = strlen(text);
  if (length >= URI_MAX) return fail_usage(why, FORM, "the URI is longer than %d characters", URI_MAX - 1);
  for (size_t i = 0; i < length; i++) {
    if (text[i] <= ' ' || text[i] > '~')
      return fail_usage(why, FORM, "the URI has characters that must be percent-encoded");
  }
  if (strncmp(text, "nbds", 4) == 0) {
    return fail_usage(
        why,
        "serve the volume without TLS on a private network, or put a TLS proxy on this machine before it",
        "'%s' asks for TLS, which the kernel's client does not have", text);
  }
  bool is_unix = strncmp(text, "nbd+unix://", 11) == 0;
  if (!is_unix && strncmp(text, "nbd://", 6) != 0)
    return fail_usage(why, FORM, "'%s' is not an NBD URI", text);

  char parts[URI_MAX];
  memcpy(parts, text, length + 1);
  char *authority = parts + (is_unix ? 11 : 6);
  char *query = strchr(authority, '?');
  if (query != NULL) *query++ = '\0';
  /* The name is what follows one slash; without a slash it is the server's default export. */
  char *slash = strchr(authority, '/');
  char *name = slash == NULL ? authority + strlen(authority) : slash + 1;
  if (!decode(name, strlen(name), out->export_name, sizeof out->export_name)) {
    return fail_usage(why, "use at most 256 bytes", "the name of the export cannot be used");
  }
  if (is_unix) {
    if (slash != authority) return fail_usage(why, FORM, "a unix URI has no host");
    return parse_unix(name, query, out, why);
  }
  if (query != NULL) return fail_usage(why, FORM, "'?%s' is not understood", query);
  if (slash != NULL) *slash = '\0';
  return parse_host_port(authority, out->host, sizeof out->host, &out->port, why);
}

/* The numeric form of one address, or nothing when it is not one. */
static bool numeric_address(const char *host, unsigned port, struct address *out) {
  struct in_addr v4;
  struct in6_addr v6;
  if (inet_pton(AF_INET, host, &v4) == 1) {
    snprintf(out->text, sizeof out->text, "%s:%u", host, port);
    return true;
  }
  char bare[INET6_ADDRSTRLEN + 1 + IF_NAMESIZE];
  if (strlen(host) >= sizeof bare) return false;
  strcpy(bare, host);
  char *scope = strchr(bare, '%');
  if (scope != NULL) *scope = '\0';
  if (inet_pton(AF_INET6, bare, &v6) != 1) return false;
  snprintf(out->text, sizeof out->text, "[%.*s]:%u", (int)sizeof bare, host, port);
  return true;
}

static void add_address(const struct address *address, struct address *list, unsigned *count) {
  for (unsigned i = 0; i < *count; i++) {
    if (strcmp(list[i].text, address->text) == 0) return;
  }
  if (*count < ADDRESSES_MAX) list[(*count)++] = *address;
}

/* Starts `getent ahosts HOST` with its output in a pipe; returns the reading end or −1. */
static int start_lookup(const char *host, pid_t *pid) {
  int ends[2];
  if (pipe(ends) != 0) return -1;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  posix_spawn_file_actions_addclose(&actions, ends[0]);
  posix_spawn_file_actions_addclose(&actions, ends[1]);
  char *const args[] = {"getent", "ahosts", "--", (char *)host, NULL};
  int error = posix_spawnp(pid, args[0], &actions, NULL, args, environ);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  if (error == 0) return ends[0];
  close(ends[0]);
  errno = error;
  return -1;
}

bool add_host(const char *host, unsigned port, struct address *list, unsigned *count, struct failure *why) {
  static const char use_number[] = "check the name, or use a numeric address";
  struct address address;
  if (numeric_address(host, port, &address)) {
    add_address(&address, list, count);
    return true;
  }
  pid_t pid;
  int from = start_lookup(host, &pid);
  if (from < 0) return fail(why, use_number, "cannot look up '%s': getent: %s", host, strerror(errno));
  FILE *lines = fdopen(from, "r");
  char line[512];
  unsigned found = 0;
  while (lines != NULL && fgets(line, sizeof line, lines) != NULL) {
    line[strcspn(line, " \t\n")] = '\0';
    if (!numeric_address(line, port, &address)) continue;
    add_address(&address, list, count);
    found++;
  }
  if (lines != NULL) fclose(lines);
  waitpid(pid, NULL, 0);
  return found > 0 || fail(why, use_number, "the host '%s' is not known", host);
}
