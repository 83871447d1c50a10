/* list and name: what is attached, whether its connections stand, and if not, since when and why it waits. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "json.h"
#include "nbd-protocol.h"
#include "state.h"

struct row {
  struct attachment attachment;
  unsigned links;
  /* "ok", "degraded" (some connections stand) or "waits" (none does). */
  const char *state;
  char why[WAITS_FOR_MAX];
};

static void look_at(struct row *row, bool monitored) {
  struct attachment *a = &row->attachment;
  row->links = state_live_links(a);
  row->state = row->links >= a->connections ? "ok" : row->links > 0 ? "degraded" : "waits";
  snprintf(row->why, sizeof row->why, "%s", a->waits_for);
  if (row->links >= a->connections)
    row->why[0] = '\0';
  else if (!monitored)
    snprintf(row->why, sizeof row->why, "no monitor runs; start it with: lamina-attach monitor");
  else if (row->why[0] == '\0')
    snprintf(row->why, sizeof row->why, "reconnecting");
}

static void print_size(uint64_t size) {
  static const char units[] = "BKMGTPE";
  unsigned unit = 0;
  while (units[unit + 1] != '\0' && size >= 1024 && size % 1024 == 0) {
    size /= 1024;
    unit++;
  }
  printf("%" PRIu64 "%c", size, units[unit]);
}

static void print_row(const struct row *row) {
  const struct attachment *a = &row->attachment;
  printf("/dev/nbd%-4u %u/%u  ", a->index, row->links, a->connections);
  print_size(a->size);
  printf("%s  %s  %s", a->flags & NBD_FLAG_READ_ONLY ? " ro" : "", a->uri, row->state);
  if (row->links < a->connections && a->waits_since != 0) {
    printf(" for %" PRId64 " s", wall_seconds() - a->waits_since);
  }
  printf("%s%s\n", row->why[0] == '\0' ? "" : ": ", row->why);
}

static void print_text(const char *key, const char *text) {
  printf("\"%s\": ", key);
  json_write_string(stdout, text);
  printf(", ");
}

static void print_json_row(const struct row *row) {
  const struct attachment *a = &row->attachment;
  char device[32];
  snprintf(device, sizeof device, "/dev/nbd%u", a->index);
  printf("{");
  print_text("device", device);
  print_text("uri", a->uri);
  print_text("address", a->addresses[a->current].text);
  print_text("state", row->state);
  print_text("reason", row->why);
  printf("\"since\": %" PRId64 ", \"links\": %u, \"connections\": %u, ", a->waits_since, row->links,
         a->connections);
  printf("\"size\": %" PRIu64 ", \"blockSize\": %u, \"readOnly\": %s, ", a->size, a->block_size,
         a->flags & NBD_FLAG_READ_ONLY ? "true" : "false");
  printf("\"timeout\": %u, \"deadTimeout\": %u, \"attachedAt\": %" PRId64 "}", a->timeout_s,
         a->dead_timeout_s, a->attached_at);
}

int command_list(int argc, char **argv) {
  struct failure why;
  bool json = false;
  for (int i = 0; i < argc; i++) {
    if (strcmp(argv[i], "--json") != 0) {
      fail_usage(&why, "write: lamina-attach list [--json]", "'%s' is not understood", argv[i]);
      return report(&why);
    }
    json = true;
  }
  static uint32_t indices[ATTACHMENTS_MAX];
  static struct row row;
  bool monitored = monitor_runs();
  unsigned count = state_list(indices);
  unsigned shown = 0;
  if (json) printf("{\"monitor\": %s, \"attached\": [", monitored ? "true" : "false");
  for (unsigned i = 0; i < count; i++) {
    if (!state_read(indices[i], &row.attachment) || !state_is_live(&row.attachment)) continue;
    look_at(&row, monitored);
    if (json) {
      printf("%s", shown == 0 ? "" : ", ");
      print_json_row(&row);
    } else {
      if (shown == 0) printf("DEVICE        LINKS SIZE URI STATE\n");
      print_row(&row);
    }
    shown++;
  }
  if (json) printf("]}\n");
  return EXIT_OK;
}

/* For udev: characters that have no place in a link's name become underscores. */
int command_name(int argc, char **argv) {
  static struct attachment attachment;
  struct failure why;
  uint32_t index;
  if (argc != 1 || !device_index(argv[0], &index)) {
    fail_usage(&why, "write: lamina-attach name nbdN", "name takes one device");
    return report(&why);
  }
  if (!state_read(index, &attachment)) {
    fail(&why, NULL, "/dev/nbd%u was not attached by lamina-attach", index);
    return report(&why);
  }
  for (const char *at = attachment.export_name; *at != '\0'; at++) {
    bool plain = (*at >= 'a' && *at <= 'z') || (*at >= 'A' && *at <= 'Z') || (*at >= '0' && *at <= '9');
    putchar(plain || *at == '-' || (*at == '.' && at != attachment.export_name) ? *at : '_');
  }
  puts(attachment.export_name[0] == '\0' ? "default" : "");
  return EXIT_OK;
}
