#include "options.h"

#include <stdlib.h>
#include <string.h>

#include "device.h"
#include "nbd-netlink.h"

static const char HELP[] = "see: lamina-attach --help";

bool parse_number(const char *option, const char *text, uint32_t least, uint32_t most, uint32_t *out,
                  struct failure *why) {
  char *end;
  unsigned long value = strtoul(text, &end, 10);
  if (text[0] < '0' || text[0] > '9' || *end != '\0' || value < least || value > most) {
    return fail_usage(why, HELP, "%s takes a number from %u to %u, not '%s'", option, least, most, text);
  }
  *out = (uint32_t)value;
  return true;
}

static bool parse_block_size(const char *text, uint32_t *out, struct failure *why) {
  if (!parse_number("--block-size", text, 512, 4096, out, why)) return false;
  return (*out & (*out - 1)) == 0 || fail_usage(why, HELP, "--block-size takes 512, 1024, 2048 or 4096");
}

static bool add_address_option(const char *text, struct options *out, struct failure *why) {
  char host[HOST_MAX];
  unsigned port;
  if (out->uri.local.text[0] != '\0') {
    return fail_usage(why, "leave out --address", "a volume on a unix socket has no other addresses");
  }
  return parse_host_port(text, host, sizeof host, &port, why) &&
         add_host(host, port, out->addresses, &out->address_count, why);
}

static bool take_value(const char *option, const char *value, struct options *out, struct failure *why) {
  if (strcmp(option, "--device") == 0) {
    out->has_device = device_index(value, &out->device);
    return out->has_device || fail_usage(why, "write /dev/nbd0", "'%s' is not an NBD device", value);
  }
  if (strcmp(option, "--connections") == 0) {
    return parse_number(option, value, 1, CONNECTIONS_MAX, &out->connections, why);
  }
  if (strcmp(option, "--timeout") == 0)
    return parse_number(option, value, 1, TIMEOUT_MAX_S, &out->timeout_s, why);
  if (strcmp(option, "--dead-timeout") == 0) {
    return parse_number(option, value, 1, DEAD_TIMEOUT_MAX_S, &out->dead_timeout_s, why);
  }
  if (strcmp(option, "--wait") == 0) return parse_number(option, value, 0, WAIT_MAX_S, &out->wait_s, why);
  if (strcmp(option, "--block-size") == 0) return parse_block_size(value, &out->block_size, why);
  return fail_usage(why, HELP, "there is no option '%s'", option);
}

static bool take_flag(const char *option, struct options *out) {
  if (strcmp(option, "--read-only") == 0) return out->read_only = true;
  if (strcmp(option, "--json") == 0) return out->json = true;
  return false;
}

/* Addresses come after the URI's own, wherever they stand in the line: so they are looked at last. */
static bool take_addresses(int argc, char **argv, struct options *out, struct failure *why) {
  if (out->uri.local.text[0] != '\0') {
    out->addresses[out->address_count++] = out->uri.local;
  } else if (!add_host(out->uri.host, out->uri.port, out->addresses, &out->address_count, why)) {
    return false;
  }
  for (int i = 0; i + 1 < argc; i++) {
    if (strcmp(argv[i], "--address") == 0 && !add_address_option(argv[i + 1], out, why)) return false;
  }
  return true;
}

bool parse_options(int argc, char **argv, struct options *out, struct failure *why) {
  *out = (struct options){.connections = CONNECTIONS_DEFAULT,
                          .timeout_s = TIMEOUT_DEFAULT_S,
                          .dead_timeout_s = DEAD_TIMEOUT_DEFAULT_S};
  for (int i = 0; i < argc; i++) {
    const char *word = argv[i];
    if (strncmp(word, "--", 2) != 0) {
      if (out->uri_text != NULL) return fail_usage(why, HELP, "'%s' is one argument too many", word);
      out->uri_text = word;
    } else if (!take_flag(word, out)) {
      if (i + 1 == argc) return fail_usage(why, HELP, "'%s' is no option, or its value is missing", word);
      const char *value = argv[++i];
      if (strcmp(word, "--address") != 0 && !take_value(word, value, out, why)) return false;
    }
  }
  if (out->uri_text == NULL) return fail_usage(why, HELP, "the volume's URI is missing");
  return parse_uri(out->uri_text, &out->uri, why) && take_addresses(argc, argv, out, why);
}
