/* The commands. Each is given its own arguments and returns the exit code. */
#ifndef LAMINA_ATTACH_COMMANDS_H
#define LAMINA_ATTACH_COMMANDS_H

int command_attach(int argc, char **argv);
int command_detach(int argc, char **argv);
int command_list(int argc, char **argv);
int command_monitor(int argc, char **argv);
int command_probe(int argc, char **argv);
int command_name(int argc, char **argv);

#endif
