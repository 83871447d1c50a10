/*
 * The part of the NBD protocol that a client needs until it hands its socket to the kernel. Names and numbers
 * are the specification's; everything on the wire is big-endian.
 */
#ifndef LAMINA_ATTACH_NBD_PROTOCOL_H
#define LAMINA_ATTACH_NBD_PROTOCOL_H

#include <stdint.h>

#define NBD_DEFAULT_PORT 10809

/* Greeting: NBDMAGIC, IHAVEOPT, handshake flags. */
#define NBD_MAGIC UINT64_C(0x4e42444d41474943)        /* "NBDMAGIC" */
#define NBD_OPTION_MAGIC UINT64_C(0x49484156454f5054) /* "IHAVEOPT" */
#define NBD_OLDSTYLE_MAGIC UINT64_C(0x0000420281861253)
#define NBD_REPLY_OPTION_MAGIC UINT64_C(0x0003e889045565a9)

#define NBD_FLAG_FIXED_NEWSTYLE (1u << 0)
#define NBD_FLAG_NO_ZEROES (1u << 1)
#define NBD_FLAG_C_FIXED_NEWSTYLE (1u << 0)
#define NBD_FLAG_C_NO_ZEROES (1u << 1)

/* Transmission flags. */
#define NBD_FLAG_HAS_FLAGS (1u << 0)
#define NBD_FLAG_READ_ONLY (1u << 1)
#define NBD_FLAG_SEND_FLUSH (1u << 2)
#define NBD_FLAG_SEND_FUA (1u << 3)
#define NBD_FLAG_ROTATIONAL (1u << 4)
#define NBD_FLAG_SEND_TRIM (1u << 5)
#define NBD_FLAG_SEND_WRITE_ZEROES (1u << 6)
#define NBD_FLAG_CAN_MULTI_CONN (1u << 8)

/* Options. */
#define NBD_OPT_EXPORT_NAME 1u
#define NBD_OPT_ABORT 2u
#define NBD_OPT_INFO 6u
#define NBD_OPT_GO 7u

/* Replies to options. */
#define NBD_REP_ACK 1u
#define NBD_REP_INFO 3u
#define NBD_REP_ERR_UNSUP 0x80000001u
#define NBD_REP_ERR_POLICY 0x80000002u
#define NBD_REP_ERR_INVALID 0x80000003u
#define NBD_REP_ERR_PLATFORM 0x80000004u
#define NBD_REP_ERR_TLS_REQD 0x80000005u
#define NBD_REP_ERR_UNKNOWN 0x80000006u
#define NBD_REP_ERR_SHUTDOWN 0x80000007u
#define NBD_REP_ERR_BLOCK_SIZE_REQD 0x80000008u
#define NBD_REP_ERR_TOO_BIG 0x80000009u
#define NBD_REP_FLAG_ERROR 0x80000000u

#define NBD_INFO_EXPORT 0u
#define NBD_INFO_BLOCK_SIZE 3u
#define NBD_INFO_EXPORT_LENGTH 12u
#define NBD_INFO_BLOCK_SIZE_LENGTH 14u

/* A block size that is advertised is a power of two up to this. */
#define NBD_MIN_BLOCK_MAX 65536u
/* Limits of a server that advertises none. */
#define NBD_DEFAULT_MIN_BLOCK 1u
#define NBD_DEFAULT_PREFERRED_BLOCK 4096u
#define NBD_DEFAULT_MAX_PAYLOAD (32u << 20)

#define NBD_CMD_DISC_TYPE 2u
#define NBD_REQUEST_MAGIC_NUMBER 0x25609513u
#define NBD_REQUEST_LENGTH 28u

#endif
