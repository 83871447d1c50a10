#include "nbd-netlink.h"

#include <errno.h>
#include <linux/genetlink.h>
#include <linux/nbd-netlink.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Everything that is sent: header, a dozen numbers, a backend name and CONNECTIONS_MAX sockets. */
#define REQUEST_MAX 4096
/* The kernel's answers and events are smaller than a page. */
#define ANSWER_MAX 16384

struct message {
  _Alignas(struct nlmsghdr) char bytes[REQUEST_MAX];
};

static struct nlmsghdr *head(struct message *message) { return (struct nlmsghdr *)message->bytes; }

static void begin(struct message *message, uint16_t type, uint8_t command, uint8_t version) {
  memset(message, 0, sizeof *message);
  head(message)->nlmsg_len = NLMSG_HDRLEN + GENL_HDRLEN;
  head(message)->nlmsg_type = type;
  head(message)->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
  struct genlmsghdr *generic = (struct genlmsghdr *)(message->bytes + NLMSG_HDRLEN);
  generic->cmd = command;
  generic->version = version;
}

/* What is put never exceeds REQUEST_MAX: every length is bounded by its caller. */
static struct nlattr *put(struct message *message, uint16_t type, const void *data, size_t length) {
  size_t at = head(message)->nlmsg_len;
  struct nlattr *attribute = (struct nlattr *)(message->bytes + at);
  attribute->nla_type = type;
  attribute->nla_len = (uint16_t)(NLA_HDRLEN + length);
  if (length > 0) memcpy(message->bytes + at + NLA_HDRLEN, data, length);
  head(message)->nlmsg_len = (uint32_t)(at + NLA_ALIGN(NLA_HDRLEN + length));
  return attribute;
}

static void put_u32(struct message *message, uint16_t type, uint32_t value) {
  put(message, type, &value, sizeof value);
}
static void put_u64(struct message *message, uint16_t type, uint64_t value) {
  put(message, type, &value, sizeof value);
}
static void put_string(struct message *message, uint16_t type, const char *text) {
  put(message, type, text, strlen(text) + 1);
}

static struct nlattr *nest(struct message *message, uint16_t type) {
  return put(message, type | NLA_F_NESTED, NULL, 0);
}
static void end_nest(struct message *message, struct nlattr *nested) {
  nested->nla_len = (uint16_t)(message->bytes + head(message)->nlmsg_len - (char *)nested);
}

static void put_sockets(struct message *message, const int *sockets, unsigned count) {
  struct nlattr *list = nest(message, NBD_ATTR_SOCKETS);
  for (unsigned i = 0; i < count; i++) {
    struct nlattr *item = nest(message, NBD_SOCK_ITEM);
    put_u32(message, NBD_SOCK_FD, (uint32_t)sockets[i]);
    end_nest(message, item);
  }
  end_nest(message, list);
}

/* The attribute of this type among `length` bytes, or NULL. */
static const struct nlattr *find(const char *at, size_t length, uint16_t type) {
  while (length >= NLA_HDRLEN) {
    const struct nlattr *attribute = (const struct nlattr *)at;
    size_t whole = attribute->nla_len;
    if (whole < NLA_HDRLEN || whole > length) return NULL;
    if ((attribute->nla_type & NLA_TYPE_MASK) == type) return attribute;
    size_t step = NLA_ALIGN(whole);
    if (step >= length) return NULL;
    at += step;
    length -= step;
  }
  return NULL;
}

static const char *payload(const struct nlattr *attribute) { return (const char *)attribute + NLA_HDRLEN; }
static size_t payload_length(const struct nlattr *attribute) {
  return (size_t)attribute->nla_len - NLA_HDRLEN;
}

static bool u32_of(const struct nlattr *attribute, uint32_t *value) {
  if (attribute == NULL || payload_length(attribute) < sizeof *value) return false;
  memcpy(value, payload(attribute), sizeof *value);
  return true;
}

/* Attributes of a generic message, when it has any. */
static bool attributes_of(const struct nlmsghdr *header, const char **at, size_t *length) {
  size_t front = NLMSG_HDRLEN + GENL_HDRLEN;
  if (header->nlmsg_len < front) return false;
  *at = (const char *)header + front;
  *length = header->nlmsg_len - front;
  return true;
}

/* Error number and, where the kernel gave one, its sentence. */
static int acknowledged(const struct nlmsghdr *header, char *words, size_t words_size) {
  const struct nlmsgerr *answer = NLMSG_DATA(header);
  words[0] = '\0';
  if (header->nlmsg_flags & NLM_F_ACK_TLVS) {
    size_t front = NLMSG_HDRLEN + sizeof *answer;
    if (!(header->nlmsg_flags & NLM_F_CAPPED) && answer->msg.nlmsg_len > sizeof answer->msg) {
      front += answer->msg.nlmsg_len - sizeof answer->msg;
    }
    front = NLMSG_ALIGN(front);
    if (front < header->nlmsg_len) {
      const struct nlattr *text =
          find((const char *)header + front, header->nlmsg_len - front, NLMSGERR_ATTR_MSG);
      if (text != NULL) snprintf(words, words_size, "%.*s", (int)payload_length(text), payload(text));
    }
  }
  return -answer->error;
}

/*
 * Sends and waits for the acknowledgement; `answer` (ANSWER_MAX bytes, may be NULL) receives a message that
 * came before it. Returns 0 or an error number.
 */
static int exchange(struct nbd_netlink *netlink, struct message *message, char *answer, char *words,
                    size_t words_size) {
  head(message)->nlmsg_seq = ++netlink->sequence;
  words[0] = '\0';
  if (send(netlink->fd, message->bytes, head(message)->nlmsg_len, 0) < 0) return errno;
  for (;;) {
    _Alignas(struct nlmsghdr) char buffer[ANSWER_MAX];
    ssize_t got = recv(netlink->fd, buffer, sizeof buffer, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno;
    size_t left = (size_t)got;
    for (struct nlmsghdr *header = (struct nlmsghdr *)buffer; NLMSG_OK(header, left);
         header = NLMSG_NEXT(header, left)) {
      if (header->nlmsg_seq != netlink->sequence) continue;
      if (header->nlmsg_type == NLMSG_ERROR) return acknowledged(header, words, words_size);
      if (answer != NULL) memcpy(answer, header, header->nlmsg_len);
    }
  }
}

static uint32_t group_id(const char *at, size_t length, const char *name) {
  const struct nlattr *groups = find(at, length, CTRL_ATTR_MCAST_GROUPS);
  if (groups == NULL) return 0;
  const char *item = payload(groups);
  size_t left = payload_length(groups);
  while (left >= NLA_HDRLEN) {
    const struct nlattr *group = (const struct nlattr *)item;
    if (group->nla_len < NLA_HDRLEN || group->nla_len > left) return 0;
    const struct nlattr *label = find(payload(group), payload_length(group), CTRL_ATTR_MCAST_GRP_NAME);
    uint32_t id;
    bool matches = label != NULL && strncmp(payload(label), name, payload_length(label)) == 0;
    if (matches && u32_of(find(payload(group), payload_length(group), CTRL_ATTR_MCAST_GRP_ID), &id))
      return id;
    size_t step = NLA_ALIGN((size_t)group->nla_len);
    if (step >= left) return 0;
    item += step;
    left -= step;
  }
  return 0;
}

static bool find_family(struct nbd_netlink *netlink, struct failure *why) {
  struct message message;
  _Alignas(struct nlmsghdr) char answer[ANSWER_MAX] = {0};
  char words[128];
  begin(&message, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, 1);
  put_string(&message, CTRL_ATTR_FAMILY_NAME, NBD_GENL_FAMILY_NAME);
  int error = exchange(netlink, &message, answer, words, sizeof words);
  if (error == ENOENT) {
    return fail(why, "load it, as root: modprobe nbd", "the kernel's NBD driver is not loaded");
  }
  if (error != 0) return fail(why, NULL, "cannot ask the kernel for its NBD driver: %s", strerror(error));
  const char *at;
  size_t length;
  const struct nlattr *id = NULL;
  if (attributes_of((struct nlmsghdr *)answer, &at, &length)) id = find(at, length, CTRL_ATTR_FAMILY_ID);
  if (id == NULL || payload_length(id) < sizeof netlink->family) {
    return fail(why, NULL, "the kernel's answer about its NBD driver is malformed");
  }
  memcpy(&netlink->family, payload(id), sizeof netlink->family);
  netlink->events_group = group_id(at, length, NBD_GENL_MCAST_GROUP_NAME);
  return true;
}

bool netlink_open(struct nbd_netlink *netlink, struct failure *why) {
  netlink->sequence = 0;
  netlink->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
  if (netlink->fd < 0) return fail(why, NULL, "cannot open a netlink socket: %s", strerror(errno));
  setsockopt(netlink->fd, SOL_NETLINK, NETLINK_EXT_ACK, &(int){1}, sizeof(int));
  struct sockaddr_nl self = {.nl_family = AF_NETLINK};
  if (bind(netlink->fd, (struct sockaddr *)&self, sizeof self) != 0) {
    fail(why, NULL, "cannot bind a netlink socket: %s", strerror(errno));
  } else if (find_family(netlink, why)) {
    return true;
  }
  netlink_close(netlink);
  return false;
}

void netlink_close(struct nbd_netlink *netlink) {
  close(netlink->fd);
  netlink->fd = -1;
}

static bool explain(int error, const char *words, const char *what, uint32_t index, struct failure *why) {
  if (error == EPERM) return fail(why, "run it as root", "only root may %s /dev/nbd%u", what, index);
  const char *reason = words[0] != '\0' ? words : strerror(error);
  return fail(why, "look at the end of: dmesg", "the kernel does not %s /dev/nbd%u: %s", what, index, reason);
}

bool netlink_connect(struct nbd_netlink *netlink, const struct nbd_connect *request, bool *busy,
                     struct failure *why) {
  struct message message;
  char words[128];
  begin(&message, netlink->family, NBD_CMD_CONNECT, NBD_GENL_VERSION);
  put_u32(&message, NBD_ATTR_INDEX, request->index);
  put_u64(&message, NBD_ATTR_SIZE_BYTES, request->size);
  put_u64(&message, NBD_ATTR_BLOCK_SIZE_BYTES, request->block_size);
  put_u64(&message, NBD_ATTR_SERVER_FLAGS, request->server_flags);
  put_u64(&message, NBD_ATTR_TIMEOUT, request->timeout_s);
  put_u64(&message, NBD_ATTR_DEAD_CONN_TIMEOUT, request->dead_timeout_s);
  /* None: but said, so that nothing is left of whoever had the device before. */
  put_u64(&message, NBD_ATTR_CLIENT_FLAGS, 0);
  put_string(&message, NBD_ATTR_BACKEND_IDENTIFIER, request->backend);
  put_sockets(&message, request->sockets, request->socket_count);
  int error = exchange(netlink, &message, NULL, words, sizeof words);
  *busy = error == EBUSY;
  if (error == 0) return true;
  if (*busy) return fail(why, "choose another device, or none", "/dev/nbd%u is in use", request->index);
  return explain(error, words, "attach", request->index, why);
}

bool netlink_reconnect(struct nbd_netlink *netlink, uint32_t index, const char *backend, const int *sockets,
                       unsigned count, struct failure *why) {
  struct message message;
  char words[128];
  begin(&message, netlink->family, NBD_CMD_RECONFIGURE, NBD_GENL_VERSION);
  put_u32(&message, NBD_ATTR_INDEX, index);
  put_string(&message, NBD_ATTR_BACKEND_IDENTIFIER, backend);
  put_sockets(&message, sockets, count);
  int error = exchange(netlink, &message, NULL, words, sizeof words);
  return error == 0 || explain(error, words, "reconnect", index, why);
}

bool netlink_resize(struct nbd_netlink *netlink, uint32_t index, const char *backend, uint64_t size,
                    struct failure *why) {
  struct message message;
  char words[128];
  begin(&message, netlink->family, NBD_CMD_RECONFIGURE, NBD_GENL_VERSION);
  put_u32(&message, NBD_ATTR_INDEX, index);
  put_string(&message, NBD_ATTR_BACKEND_IDENTIFIER, backend);
  put_u64(&message, NBD_ATTR_SIZE_BYTES, size);
  int error = exchange(netlink, &message, NULL, words, sizeof words);
  return error == 0 || explain(error, words, "resize", index, why);
}

bool netlink_disconnect(struct nbd_netlink *netlink, uint32_t index, struct failure *why) {
  struct message message;
  char words[128];
  begin(&message, netlink->family, NBD_CMD_DISCONNECT, NBD_GENL_VERSION);
  put_u32(&message, NBD_ATTR_INDEX, index);
  int error = exchange(netlink, &message, NULL, words, sizeof words);
  return error == 0 || explain(error, words, "detach", index, why);
}

bool netlink_subscribe(struct nbd_netlink *netlink, struct failure *why) {
  uint32_t group = netlink->events_group;
  if (setsockopt(netlink->fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) == 0) return true;
  return fail(why, "run it as root", "cannot listen to the kernel's NBD events: %s", strerror(errno));
}

enum netlink_event netlink_next_event(struct nbd_netlink *netlink, uint32_t *index) {
  for (;;) {
    _Alignas(struct nlmsghdr) char buffer[ANSWER_MAX];
    ssize_t got = recv(netlink->fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (got < 0) return errno == ENOBUFS ? EVENT_LOST : EVENT_NONE;
    struct nlmsghdr *header = (struct nlmsghdr *)buffer;
    if (!NLMSG_OK(header, (size_t)got) || header->nlmsg_type != netlink->family) continue;
    const char *at;
    size_t length;
    if (!attributes_of(header, &at, &length)) continue;
    const struct genlmsghdr *generic = NLMSG_DATA(header);
    if (generic->cmd == NBD_CMD_LINK_DEAD && u32_of(find(at, length, NBD_ATTR_INDEX), index))
      return EVENT_LINK_DEAD;
  }
}
