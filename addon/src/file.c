/*
 * Files and block devices: what node:fs does not offer. Descriptors are opened by node:fs.
 */
#include "addon.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

/* Headers older than Linux 6.8. Mount ids of this kind are never used again until the next boot. */
#ifndef STATX_MNT_ID_UNIQUE
#define STATX_MNT_ID_UNIQUE 0x00004000U
#endif

static bool device_numbers(napi_env env, int fd, napi_value object) {
  uint64_t bytes = 0, sequence = 0;
  int sector = 0;
  if (ioctl(fd, BLKGETSIZE64, &bytes) != 0 || ioctl(fd, BLKSSZGET, &sector) != 0) return false;
  set_number(env, object, "size", (double)bytes);
  set_number(env, object, "sectorBytes", sector);
#ifdef BLKGETDISKSEQ
  if (ioctl(fd, BLKGETDISKSEQ, &sequence) == 0) set_number(env, object, "diskSequence", (double)sequence);
#endif
  return true;
}

/*
 * fileFacts(fd): an object, or -errno. Absent properties are what the kernel does not know:
 * memoryAlign, offsetAlign (direct I/O), mountId, sectorBytes and diskSequence (block devices). inMemory: the
 * bytes are in memory and nowhere else (tmpfs, ramfs).
 */
static napi_value file_facts(napi_env env, napi_callback_info info) {
  napi_value args[1], object;
  Instance *instance;
  int32_t fd;
  if (!arguments_get(env, info, 1, args, &instance) || !get_i32(env, args[0], &fd)) return NULL;
  struct statx status;
  const unsigned mask = STATX_BASIC_STATS | STATX_DIOALIGN | STATX_MNT_ID_UNIQUE;
  if (statx(fd, "", AT_EMPTY_PATH, mask, &status) != 0) return make_number(env, -errno);
  if ((status.stx_mask & (STATX_MNT_ID | STATX_MNT_ID_UNIQUE)) == 0 &&
      statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_DIOALIGN | STATX_MNT_ID, &status) != 0)
    return make_number(env, -errno);
  if (napi_create_object(env, &object) != napi_ok) return NULL;
  set_value(env, object, "kind",
            make_text(env, S_ISREG(status.stx_mode) ? "file" : S_ISBLK(status.stx_mode) ? "block" : "other"));
  set_number(env, object, "size", (double)status.stx_size);
  set_number(env, object, "blockBytes", status.stx_blksize);
  if ((status.stx_mask & (STATX_MNT_ID | STATX_MNT_ID_UNIQUE)) != 0)
    set_number(env, object, "mountId", (double)status.stx_mnt_id);
  if ((status.stx_mask & STATX_DIOALIGN) != 0) {
    set_number(env, object, "memoryAlign", status.stx_dio_mem_align);
    set_number(env, object, "offsetAlign", status.stx_dio_offset_align);
  }
  struct statfs system;
  bool in_memory = S_ISREG(status.stx_mode) && fstatfs(fd, &system) == 0 &&
                   (system.f_type == TMPFS_MAGIC || system.f_type == RAMFS_MAGIC);
  napi_value boolean;
  if (napi_get_boolean(env, in_memory, &boolean) == napi_ok) set_value(env, object, "inMemory", boolean);
  if (S_ISBLK(status.stx_mode)) {
    set_number(env, object, "deviceMajor", status.stx_rdev_major);
    set_number(env, object, "deviceMinor", status.stx_rdev_minor);
    if (!device_numbers(env, fd, object)) return make_number(env, -errno);
  }
  return object;
}

/* fileLock(fd): takes the exclusive flock without waiting; 0 or -errno (-EAGAIN: someone has it) */
static napi_value file_lock(napi_env env, napi_callback_info info) {
  napi_value args[1];
  Instance *instance;
  int32_t fd;
  if (!arguments_get(env, info, 1, args, &instance) || !get_i32(env, args[0], &fd)) return NULL;
  return make_number(env, flock(fd, LOCK_EX | LOCK_NB) == 0 ? 0 : -errno);
}

/* Moves all bytes with one system call where the kernel can, going on after short ones; bytes or -errno. */
static int64_t transfer(bool writing, int fd, uint8_t *bytes, int64_t offset, int64_t length) {
  int64_t done = 0;
  while (done < length) {
    size_t left = (size_t)(length - done);
    ssize_t moved = writing ? pwrite(fd, bytes + done, left, offset + done) : pread(fd, bytes + done, left, offset + done);
    if (moved < 0 && errno == EINTR) continue;
    if (moved < 0) return -errno;
    /* The end of a file that should be longer. */
    if (moved == 0) return -EIO;
    done += moved;
  }
  return done;
}

static napi_value transfer_now(napi_env env, napi_callback_info info, bool writing) {
  napi_value args[5];
  Instance *instance;
  uint32_t memory;
  int32_t fd;
  int64_t offset, at, length;
  if (!arguments_get(env, info, 5, args, &instance) || !get_u32(env, args[0], &memory) ||
      !get_i32(env, args[1], &fd) || !get_i64(env, args[2], &offset) || !get_i64(env, args[3], &at) ||
      !get_i64(env, args[4], &length))
    return NULL;
  uint8_t *bytes = memory_at(instance, memory, at, length);
  if (bytes == NULL) return make_number(env, -EFAULT);
  return make_number(env, (double)transfer(writing, fd, bytes, offset, length));
}

/* fileWriteNow(memory, fd, offset, at, length): synchronous; all bytes or -errno */
static napi_value file_write_now(napi_env env, napi_callback_info info) {
  return transfer_now(env, info, true);
}

/* fileReadNow(memory, fd, offset, at, length): synchronous; all bytes or -errno */
static napi_value file_read_now(napi_env env, napi_callback_info info) {
  return transfer_now(env, info, false);
}

/* fileSeek(fd, offset, hole): start of the next data, or hole, at or behind offset; -ENXIO: no data follows */
static napi_value file_seek(napi_env env, napi_callback_info info) {
  napi_value args[3];
  Instance *instance;
  int32_t fd;
  int64_t offset;
  uint32_t hole;
  if (!arguments_get(env, info, 3, args, &instance) || !get_i32(env, args[0], &fd) ||
      !get_i64(env, args[1], &offset) || !get_u32(env, args[2], &hole))
    return NULL;
  off_t found = lseek(fd, offset, hole != 0 ? SEEK_HOLE : SEEK_DATA);
  return make_number(env, found >= 0 ? (double)found : -errno);
}

/*
 * fileWriteBack(fd, offset, length): begins to write dirty pages of the range to the device, without waiting and
 * without promising anything; 0 or -errno
 */
static napi_value file_write_back(napi_env env, napi_callback_info info) {
  napi_value args[3];
  Instance *instance;
  int32_t fd;
  int64_t offset, length;
  if (!arguments_get(env, info, 3, args, &instance) || !get_i32(env, args[0], &fd) ||
      !get_i64(env, args[1], &offset) || !get_i64(env, args[2], &length))
    return NULL;
  return make_number(env, sync_file_range(fd, offset, length, SYNC_FILE_RANGE_WRITE) == 0 ? 0 : -errno);
}

/* fileClose(fd): 0 or -errno. Also for sockets. */
static napi_value file_close(napi_env env, napi_callback_info info) {
  napi_value args[1];
  Instance *instance;
  int32_t fd;
  if (!arguments_get(env, info, 1, args, &instance) || !get_i32(env, args[0], &fd)) return NULL;
  return make_number(env, close(fd) == 0 ? 0 : -errno);
}

/* fallocate(2) on the thread pool: it may take long. */
typedef struct {
  int fd, mode, result;
  int64_t offset, length;
  napi_ref callback;
  napi_async_work work;
} Allocation;

static void allocation_run(napi_env env, void *data) {
  (void)env;
  Allocation *a = data;
  do a->result = fallocate(a->fd, a->mode, a->offset, a->length) == 0 ? 0 : -errno;
  while (a->result == -EINTR);
}

static void allocation_done(napi_env env, napi_status status, void *data) {
  Allocation *a = data;
  napi_value callback, receiver, argument = make_number(env, status == napi_ok ? a->result : -ECANCELED);
  napi_get_reference_value(env, a->callback, &callback);
  napi_delete_reference(env, a->callback);
  napi_delete_async_work(env, a->work);
  free(a);
  if (napi_get_global(env, &receiver) == napi_ok) napi_call_function(env, receiver, callback, 1, &argument, NULL);
}

/* fileAllocate(fd, mode, offset, length, callback(result)): 0 when under way, or -errno */
static napi_value file_allocate(napi_env env, napi_callback_info info) {
  napi_value args[5], name;
  Instance *instance;
  Allocation a = {0};
  if (!arguments_get(env, info, 5, args, &instance) || !get_i32(env, args[0], &a.fd) ||
      !get_i32(env, args[1], &a.mode) || !get_i64(env, args[2], &a.offset) || !get_i64(env, args[3], &a.length))
    return NULL;
  Allocation *held = malloc(sizeof *held);
  if (held == NULL) return make_number(env, -ENOMEM);
  *held = a;
  if (napi_create_reference(env, args[4], 1, &held->callback) != napi_ok) {
    free(held);
    return make_number(env, -EINVAL);
  }
  if (napi_create_string_utf8(env, "lamina:allocate", NAPI_AUTO_LENGTH, &name) != napi_ok ||
      napi_create_async_work(env, NULL, name, allocation_run, allocation_done, held, &held->work) != napi_ok ||
      napi_queue_async_work(env, held->work) != napi_ok) {
    napi_delete_reference(env, held->callback);
    free(held);
    return make_number(env, -ENOMEM);
  }
  return make_number(env, 0);
}

const Method FILE_METHODS[] = {
    {"fileFacts", file_facts},        {"fileLock", file_lock},         {"fileWriteNow", file_write_now}, {"fileReadNow", file_read_now},
    {"fileSeek", file_seek},          {"fileClose", file_close},         {"fileAllocate", file_allocate}, {"fileWriteBack", file_write_back}, {NULL, NULL},
};
