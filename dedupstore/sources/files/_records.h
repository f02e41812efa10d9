/* What the C files of this package share: stat records, a buffer that grows, and how a file is opened.
 *
 * listing.py and ../segments.py define all of it.
 */
#ifndef DEDUPSTORE_RECORDS_H
#define DEDUPSTORE_RECORDS_H

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "elsewhere listing.py does the work");

typedef struct {
    uint32_t mode, nlink, uid, gid, mtime_ns, ctime_ns;
    uint64_t ino;
    int64_t size, mtime, ctime;
    uint64_t rdev, dev;
} Record;
_Static_assert(sizeof(Record) == 72, "a record has no padding");

static Record record_of(const struct stat *status, uint64_t folder_dev)
{
    int device = S_ISCHR(status->st_mode) || S_ISBLK(status->st_mode);
    return (Record){
        .mode = status->st_mode,
        .nlink = (uint32_t)status->st_nlink,
        .uid = status->st_uid,
        .gid = status->st_gid,
        .mtime_ns = (uint32_t)status->st_mtim.tv_nsec,
        .ctime_ns = (uint32_t)status->st_ctim.tv_nsec,
        .ino = status->st_ino,
        .size = status->st_size,
        .mtime = status->st_mtim.tv_sec,
        .ctime = status->st_ctim.tv_sec,
        .rdev = device ? status->st_rdev : 0,
        .dev = status->st_dev == folder_dev ? 0 : status->st_dev,
    };
}

static int open_quietly(int dirfd, const char *name, int flags)
{
    int fd = openat(dirfd, name, flags | O_NOATIME);
    return fd < 0 && errno == EPERM ? openat(dirfd, name, flags) : fd;
}

typedef struct {
    char *bytes;
    size_t used, room;
} Buffer;

/* Returns where `size` more bytes may be written, or NULL without memory. */
static char *reserve(Buffer *buffer, size_t size)
{
    if (buffer->room - buffer->used < size) {
        size_t room = buffer->room + buffer->room / 2 + size + 1024;
        char *bytes = realloc(buffer->bytes, room);
        if (!bytes)
            return NULL;
        buffer->bytes = bytes;
        buffer->room = room;
    }
    return buffer->bytes + buffer->used;
}

#endif
