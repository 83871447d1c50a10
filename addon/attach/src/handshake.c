#include "handshake.h"

#include <endian.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "nbd-protocol.h"
#include "transport.h"

/* Bytes of one reply to an option: an INFO with a name of 4096 bytes fits. More is a server out of its mind. */
#define OPTION_REPLY_MAX 8192
/* INFO replies to one option; the specification knows four kinds. */
#define INFO_REPLIES_MAX 64
/* Characters of a server's own words that are passed on. */
#define SERVER_TEXT_MAX 160
/* EXPORT_NAME is answered with this many zero bytes unless both sides agreed to leave them out. */
#define ZEROES_LENGTH 124
/* Name length, name, count of requests, one request. */
#define GO_DATA_MAX (4 + EXPORT_NAME_MAX + 2 + 2)

static const char NOT_OURS[] = "check the address: an NBD server of the last ten years is needed";

struct __attribute__((packed)) greeting {
  uint64_t magic;
  uint64_t option_magic;
  uint16_t flags;
};

struct __attribute__((packed)) option_header {
  uint64_t magic;
  uint32_t option;
  uint32_t length;
};

struct __attribute__((packed)) reply_header {
  uint64_t magic;
  uint32_t option;
  uint32_t type;
  uint32_t length;
};

struct option_reply {
  uint32_t type;
  uint32_t length;
  uint8_t data[OPTION_REPLY_MAX];
};

static uint16_t get16(const uint8_t *at) {
  uint16_t value;
  memcpy(&value, at, sizeof value);
  return be16toh(value);
}

static uint32_t get32(const uint8_t *at) {
  uint32_t value;
  memcpy(&value, at, sizeof value);
  return be32toh(value);
}

static uint64_t get64(const uint8_t *at) {
  uint64_t value;
  memcpy(&value, at, sizeof value);
  return be64toh(value);
}

static uint8_t *put16(uint8_t *at, uint16_t value) {
  value = htobe16(value);
  memcpy(at, &value, sizeof value);
  return at + sizeof value;
}

static uint8_t *put32(uint8_t *at, uint32_t value) {
  value = htobe32(value);
  memcpy(at, &value, sizeof value);
  return at + sizeof value;
}

static bool is_power_of_two(uint32_t value) { return value != 0 && (value & (value - 1)) == 0; }

static bool greet(int fd, int64_t deadline, bool *no_zeroes, struct failure *why) {
  struct greeting hello;
  /* An oldstyle server sends its size where newstyle has flags: the first 16 bytes tell them apart. */
  if (!read_exactly(fd, &hello, 16, deadline, why)) return false;
  if (be64toh(hello.magic) != NBD_MAGIC) return fail(why, NOT_OURS, "what answers is not an NBD server");
  if (be64toh(hello.option_magic) == NBD_OLDSTYLE_MAGIC) {
    return fail(why, NOT_OURS, "the server speaks the oldstyle handshake, which has no named exports");
  }
  if (be64toh(hello.option_magic) != NBD_OPTION_MAGIC) {
    return fail(why, NOT_OURS, "what answers is not an NBD server");
  }
  if (!read_exactly(fd, &hello.flags, sizeof hello.flags, deadline, why)) return false;
  uint16_t flags = be16toh(hello.flags);
  if (!(flags & NBD_FLAG_FIXED_NEWSTYLE)) {
    return fail(why, NOT_OURS, "the server does not know the fixed newstyle handshake");
  }
  *no_zeroes = flags & NBD_FLAG_NO_ZEROES;
  uint32_t answer = htobe32(NBD_FLAG_C_FIXED_NEWSTYLE | (*no_zeroes ? NBD_FLAG_C_NO_ZEROES : 0));
  return write_all(fd, &answer, sizeof answer, deadline, why);
}

static bool send_option(int fd, uint32_t option, const void *data, uint32_t length, int64_t deadline,
                        struct failure *why) {
  uint8_t message[sizeof(struct option_header) + GO_DATA_MAX];
  struct option_header header = {
      .magic = htobe64(NBD_OPTION_MAGIC), .option = htobe32(option), .length = htobe32(length)};
  memcpy(message, &header, sizeof header);
  if (length > 0) memcpy(message + sizeof header, data, length);
  return write_all(fd, message, sizeof header + length, deadline, why);
}

static bool read_reply(int fd, uint32_t option, struct option_reply *reply, int64_t deadline,
                       struct failure *why) {
  struct reply_header header;
  if (!read_exactly(fd, &header, sizeof header, deadline, why)) return false;
  if (be64toh(header.magic) != NBD_REPLY_OPTION_MAGIC || be32toh(header.option) != option) {
    return fail(why, NOT_OURS, "the server's answer does not belong to the question");
  }
  reply->type = be32toh(header.type);
  reply->length = be32toh(header.length);
  if (reply->length > sizeof reply->data) {
    return fail(why, NOT_OURS, "the server announces an answer of %u bytes", reply->length);
  }
  return read_exactly(fd, reply->data, reply->length, deadline, why);
}

static bool take_export(const struct option_reply *reply, struct export_info *info, struct failure *why) {
  if (reply->length != NBD_INFO_EXPORT_LENGTH)
    return fail(why, NOT_OURS, "the server's export information is malformed");
  info->size = get64(reply->data + 2);
  info->flags = get16(reply->data + 10);
  return true;
}

static bool take_block_sizes(const struct option_reply *reply, struct export_info *info,
                             struct failure *why) {
  if (reply->length != NBD_INFO_BLOCK_SIZE_LENGTH)
    return fail(why, NOT_OURS, "the server's block sizes are malformed");
  uint32_t min = get32(reply->data + 2);
  uint32_t preferred = get32(reply->data + 6);
  uint32_t max = get32(reply->data + 10);
  bool possible = is_power_of_two(min) && min <= NBD_MIN_BLOCK_MAX && is_power_of_two(preferred) &&
                  preferred >= min && preferred >= 512 && max >= preferred;
  if (!possible) {
    return fail(why, "report this to whoever wrote the server",
                "the server advertises impossible block sizes: minimum %u, preferred %u, maximum %u", min,
                preferred, max);
  }
  info->block_min = min;
  info->block_preferred = preferred;
  info->payload_max = max;
  return true;
}

/* A server's words, made harmless for a terminal, with the quotation marks around them. */
static const char *quoted(const struct option_reply *reply, char *out, size_t size) {
  if (reply->length == 0) return "";
  size_t length = reply->length < SERVER_TEXT_MAX ? reply->length : SERVER_TEXT_MAX;
  char text[SERVER_TEXT_MAX + 1];
  for (size_t i = 0; i < length; i++) {
    uint8_t byte = reply->data[i];
    text[i] = byte >= 0x20 && byte != 0x7f && byte < 0x80 ? (char)byte : '?';
  }
  text[length] = '\0';
  snprintf(out, size, ": \"%s\"", text);
  return out;
}

static bool refused(const struct option_reply *reply, const char *name, struct failure *why) {
  char words[SERVER_TEXT_MAX + 8];
  const char *said = quoted(reply, words, sizeof words);
  switch (reply->type) {
    case NBD_REP_ERR_UNKNOWN:
      return fail(why, "list what it serves with: nbdinfo --list nbd://HOST:PORT",
                  "the server has no export '%s'%s", name, said);
    case NBD_REP_ERR_TLS_REQD:
      return fail(
          why,
          "serve the volume without TLS on a private network, or put a TLS proxy on this machine before it",
          "the server requires TLS, which the kernel's client does not have%s", said);
    case NBD_REP_ERR_POLICY:
      return fail(why, "check the volume's access list on the server",
                  "the server forbids '%s' to this machine%s", name, said);
    case NBD_REP_ERR_SHUTDOWN:
      return fail(why, "try again when it is up", "the server is shutting down%s", said);
    case NBD_REP_ERR_BLOCK_SIZE_REQD:
      return fail(why, "report this to whoever wrote the server",
                  "the server asks for block sizes although it was asked%s", said);
    default:
      return fail(why, NULL, "the server refused '%s' with error 0x%08x%s", name, reply->type, said);
  }
}

static uint32_t go_data(uint8_t *data, const char *name) {
  uint32_t length = (uint32_t)strlen(name);
  uint8_t *at = put32(data, length);
  memcpy(at, name, length);
  at = put16(at + length, 1);
  at = put16(at, NBD_INFO_BLOCK_SIZE);
  return (uint32_t)(at - data);
}

enum go_result { GO_DONE, GO_UNSUPPORTED, GO_FAILED };

static enum go_result go(int fd, uint32_t option, const char *name, int64_t deadline,
                         struct export_info *info, struct failure *why) {
  uint8_t data[GO_DATA_MAX];
  uint32_t length = go_data(data, name);
  if (!send_option(fd, option, data, length, deadline, why)) return GO_FAILED;

  struct option_reply reply;
  bool has_export = false;
  for (unsigned replies = 0; replies < INFO_REPLIES_MAX; replies++) {
    if (!read_reply(fd, option, &reply, deadline, why)) return GO_FAILED;
    if (reply.type == NBD_REP_ERR_UNSUP) return GO_UNSUPPORTED;
    if (reply.type & NBD_REP_FLAG_ERROR) {
      refused(&reply, name, why);
      return GO_FAILED;
    }
    if (reply.type == NBD_REP_ACK) {
      if (has_export) return GO_DONE;
      fail(why, NOT_OURS, "the server accepted '%s' without saying how large it is", name);
      return GO_FAILED;
    }
    if (reply.type != NBD_REP_INFO || reply.length < 2) {
      fail(why, NOT_OURS, "the server's answer is malformed");
      return GO_FAILED;
    }
    bool good = true;
    switch (get16(reply.data)) {
      case NBD_INFO_EXPORT:
        good = has_export = take_export(&reply, info, why);
        break;
      case NBD_INFO_BLOCK_SIZE:
        good = take_block_sizes(&reply, info, why);
        break;
      default: /* Other information may come unasked. */
        break;
    }
    if (!good) return GO_FAILED;
  }
  fail(why, NOT_OURS, "the server's answer does not end");
  return GO_FAILED;
}

static bool export_name(int fd, const char *name, bool no_zeroes, int64_t deadline, struct export_info *info,
                        struct failure *why) {
  if (!send_option(fd, NBD_OPT_EXPORT_NAME, name, (uint32_t)strlen(name), deadline, why)) return false;
  uint8_t answer[10];
  struct failure closed;
  if (!read_exactly(fd, answer, sizeof answer, deadline, &closed)) {
    /* This option has no error reply: a server that does not have the export can only hang up. */
    return fail(why, "check the name of the export", "the server has no export '%s', or went away", name);
  }
  info->size = get64(answer);
  info->flags = get16(answer + 8);
  uint8_t zeroes[ZEROES_LENGTH];
  return no_zeroes || read_exactly(fd, zeroes, sizeof zeroes, deadline, why);
}

static bool check_info(const struct export_info *info, const char *name, struct failure *why) {
  if (!(info->flags & NBD_FLAG_HAS_FLAGS)) return fail(why, NOT_OURS, "the server sends flags that are none");
  if (info->size == 0) return fail(why, "give it a size first", "'%s' is empty: it has no bytes", name);
  if (info->size > INT64_MAX)
    return fail(why, NOT_OURS, "the server announces a size of %llu bytes", (unsigned long long)info->size);
  return true;
}

bool handshake(int fd, const char *name, enum handshake_mode mode, int64_t deadline, struct export_info *info,
               struct failure *why) {
  *info = (struct export_info){.block_min = NBD_DEFAULT_MIN_BLOCK,
                               .block_preferred = NBD_DEFAULT_PREFERRED_BLOCK,
                               .payload_max = NBD_DEFAULT_MAX_PAYLOAD};
  if (strlen(name) > EXPORT_NAME_MAX) return fail(why, NULL, "the name of the export is too long");
  bool no_zeroes = false;
  if (!greet(fd, deadline, &no_zeroes, why)) return false;
  uint32_t option = mode == HANDSHAKE_INFO ? NBD_OPT_INFO : NBD_OPT_GO;
  switch (go(fd, option, name, deadline, info, why)) {
    case GO_FAILED:
      return false;
    case GO_UNSUPPORTED:
      if (mode == HANDSHAKE_INFO) return fail(why, NULL, "the server cannot be asked for a size");
      if (!export_name(fd, name, no_zeroes, deadline, info, why)) return false;
      break;
    case GO_DONE:
      break;
  }
  return check_info(info, name, why);
}

void say_goodbye(int fd, enum handshake_mode mode) {
  uint8_t message[NBD_REQUEST_LENGTH] = {0};
  size_t length = sizeof message;
  if (mode == HANDSHAKE_INFO) {
    struct option_header abort = {.magic = htobe64(NBD_OPTION_MAGIC), .option = htobe32(NBD_OPT_ABORT)};
    memcpy(message, &abort, sizeof abort);
    length = sizeof abort;
  } else {
    put16(put32(message, NBD_REQUEST_MAGIC_NUMBER) + 2, NBD_CMD_DISC_TYPE);
  }
  (void)!send(fd, message, length, MSG_NOSIGNAL | MSG_DONTWAIT);
}
