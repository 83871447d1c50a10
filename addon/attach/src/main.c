/*
 * lamina-attach: NBD volumes as block devices of this machine that survive their server's restarts.
 * docs/attach.md has the whole story.
 */
#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "say.h"

static const char USAGE[] =
    "lamina-attach attach URI [options]      make a device of a volume and print its name\n"
    "lamina-attach detach DEVICE|URI         write out what is cached and let go; --force always works\n"
    "lamina-attach list [--json]             what is attached, and what it waits for\n"
    "lamina-attach monitor                   reconnect what loses its server (one for all devices)\n"
    "lamina-attach name DEVICE               the volume's name, for a udev rule\n"
    "lamina-attach probe URI [options]       what attach would find, without attaching; --json\n"
    "\n"
    "URI: nbd://HOST[:PORT]/VOLUME or nbd+unix:///VOLUME?socket=/PATH\n"
    "Options of attach:\n"
    "  --device /dev/nbdN       this device (default: the first free one)\n"
    "  --address HOST[:PORT]    another gateway of the volume, tried after the URI's; can be repeated\n"
    "  --connections N          1 to 16 (default 2; one if the server allows only one)\n"
    "  --timeout S              after S seconds without an answer use another connection (default 10)\n"
    "  --dead-timeout S         with no connection left, I/O waits for S seconds (default 86400) and then "
    "fails\n"
    "  --wait S                 keep trying for S seconds when the server does not answer (default 0)\n"
    "  --block-size N           512 to 4096 (default: 4096 where the size allows)\n"
    "  --read-only\n"
    "\n"
    "Exit codes: 0 done, 1 failed, 64 wrong usage.\n";

struct command {
  const char *name;
  int (*run)(int argc, char **argv);
};

static const struct command COMMANDS[] = {{"attach", command_attach}, {"detach", command_detach},
                                          {"list", command_list},     {"monitor", command_monitor},
                                          {"probe", command_probe},   {"name", command_name}};

static bool asks_for_help(const char *word) {
  return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0;
}

int main(int argc, char **argv) {
  for (int i = 1; i < argc; i++) {
    if (!asks_for_help(argv[i])) continue;
    fputs(USAGE, stdout);
    return EXIT_OK;
  }
  for (size_t i = 0; argc > 1 && i < sizeof COMMANDS / sizeof COMMANDS[0]; i++) {
    if (strcmp(argv[1], COMMANDS[i].name) == 0) return COMMANDS[i].run(argc - 2, argv + 2);
  }
  fputs(USAGE, stderr);
  return EXIT_USAGE;
}
