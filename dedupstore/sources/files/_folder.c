/* The calls of listing.py in C, for Linux: one stretch without the interpreter's lock for a whole folder,
 * or for all its small files. listing.py is the definition; the two give identical bytes.
 *
 * Layout of segments and records: ../segments.py. Memory of a listing: names once, 8 bytes an entry for
 * sorting, and the segments. Nothing here keeps state; all may run in any thread.
 */
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "_records.h"

enum { LIST_FLAGS = O_RDONLY | O_DIRECTORY | O_CLOEXEC };
enum { READ_FLAGS = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC };

typedef struct {
    uint32_t count, folders;
} Header;

typedef struct {
    int fd;
    uint64_t dev;
    Buffer text;   /* every name with its NUL, as read */
    char **sorted; /* into text, by bytes, each name once */
    size_t count, done;
    char *segment; /* the latest, or NULL */
    size_t size;
} Listing;

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* What the kernel writes; readdir() would cost four more calls a folder. */
struct linux_dirent64 {
    uint64_t d_ino;
    int64_t d_off;
    unsigned short d_reclen;
    unsigned char d_type;
    char d_name[];
};

/* This and every function below that returns int returns 0 or an errno. */
static int add_names(const char *entries, long size, Listing *listing)
{
    for (const char *at = entries; at < entries + size;) {
        const struct linux_dirent64 *entry = (const void *)at;
        const char *name = entry->d_name;
        at += entry->d_reclen;
        if (!strcmp(name, ".") || !strcmp(name, ".."))
            continue;
        char *out = reserve(&listing->text, strlen(name) + 1);
        if (!out)
            return ENOMEM;
        listing->text.used += (size_t)(stpcpy(out, name) - out) + 1;
        listing->count++;
    }
    return 0;
}

static int read_names(Listing *listing)
{
    _Alignas(uint64_t) char entries[32768];
    /* A second open gives a position of our own, and fails once where entries could not be reached. */
    int own = open_quietly(listing->fd, ".", LIST_FLAGS);
    if (own < 0)
        return errno;
    int error = 0;
    long size = 0;
    while (!error && (size = syscall(SYS_getdents64, own, entries, sizeof entries)) > 0)
        error = add_names(entries, size, listing);
    if (size < 0)
        error = errno;
    close(own);
    return error;
}

static int sort_names(Listing *listing)
{
    char **sorted = malloc(listing->count * sizeof *sorted + 1);
    if (!sorted)
        return ENOMEM;
    listing->sorted = sorted;
    char *at = listing->text.bytes;
    for (size_t i = 0; i < listing->count; i++, at += strlen(at) + 1)
        sorted[i] = at;
    qsort(sorted, listing->count, sizeof *sorted, by_bytes);
    /* Some file systems repeat a name when the folder changes while it is read. */
    size_t kept = 0;
    for (size_t i = 0; i < listing->count; i++)
        if (!kept || strcmp(sorted[kept - 1], sorted[i]))
            sorted[kept++] = sorted[i];
    listing->count = kept;
    return 0;
}

/* Leaves listing->segment NULL if all entries are gone. */
static int fill_segment(Listing *listing, char *const *names, size_t count)
{
    size_t size = sizeof(Header) + count * sizeof(Record);
    for (size_t i = 0; i < count; i++)
        size += strlen(names[i]) + 1;
    char *segment = malloc(size);
    if (!segment)
        return ENOMEM;

    Header header = {0};
    Record *records = (void *)(segment + sizeof header);
    char *first = (char *)(records + count), *text = first;
    for (size_t i = 0; i < count; i++) {
        struct stat status;
        if (!fstatat(listing->fd, names[i], &status, AT_SYMLINK_NOFOLLOW)) {
            records[header.count] = record_of(&status, listing->dev);
            header.folders += S_ISDIR(status.st_mode) ? 1 : 0;
        } else if (errno == ENOENT) {
            continue;
        } else {
            records[header.count] = (Record){.rdev = (uint64_t)errno};
        }
        header.count++;
        text = stpcpy(text, names[i]) + 1;
    }
    if (!header.count) {
        free(segment);
        return 0;
    }
    size_t text_size = (size_t)(text - first) - 1;
    memcpy(segment, &header, sizeof header);
    memmove(records + header.count, first, text_size);
    listing->segment = segment;
    listing->size = sizeof header + header.count * sizeof(Record) + text_size;
    return 0;
}

/* Read the names, the first time, then go on to the next segment that has entries. */
static int next_segment(Listing *listing, size_t limit)
{
    int error = 0;
    if (!listing->sorted) {
        struct stat status;
        if (fstat(listing->fd, &status))
            return errno;
        listing->dev = status.st_dev;
        error = read_names(listing);
        if (!error)
            error = sort_names(listing);
    }
    while (!error && !listing->segment && listing->done < listing->count) {
        size_t left = listing->count - listing->done, count = left < limit ? left : limit;
        error = fill_segment(listing, listing->sorted + listing->done, count);
        listing->done += count;
    }
    return error;
}

static PyObject *list_folder(PyObject *module, PyObject *args)
{
    Listing listing = {0};
    Py_ssize_t limit;
    int error = 0, failed = 0;
    (void)module;
    if (!PyArg_ParseTuple(args, "in:list_folder", &listing.fd, &limit))
        return NULL;
    if (limit < 1 || limit > INT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "segment_entries must be positive and fit 31 bits");
        return NULL;
    }
    PyObject *segments = PyList_New(0);
    if (!segments)
        return NULL;
    do {
        Py_BEGIN_ALLOW_THREADS
        error = next_segment(&listing, (size_t)limit);
        Py_END_ALLOW_THREADS
        if (listing.segment) {
            PyObject *bytes = PyBytes_FromStringAndSize(listing.segment, (Py_ssize_t)listing.size);
            failed = !bytes || PyList_Append(segments, bytes);
            Py_XDECREF(bytes);
            free(listing.segment);
            listing.segment = NULL;
        }
    } while (!error && !failed && listing.done < listing.count);
    free(listing.sorted);
    free(listing.text.bytes);
    if (error || failed)
        Py_CLEAR(segments);
    errno = error;
    return error ? PyErr_SetFromErrno(PyExc_OSError) : segments;
}

typedef struct {
    Py_ssize_t size; /* -1: does not fit */
    Record record;
    Buffer xattrs; /* for each: sizes of name and value, name, value */
} Reading;

/* Append one attribute; one that is refused, gone or growing is passed over. */
static int add_xattr(int fd, const char *name, Buffer *out)
{
    ssize_t room = fgetxattr(fd, name, NULL, 0);
    if (room < 0)
        return 0;
    uint32_t sizes[2] = {(uint32_t)strlen(name), 0};
    char *at = reserve(out, sizeof sizes + sizes[0] + (size_t)room);
    if (!at)
        return ENOMEM;
    char *value = at + sizeof sizes + sizes[0];
    ssize_t size = room ? fgetxattr(fd, name, value, (size_t)room) : 0;
    if (size < 0)
        return 0;
    sizes[1] = (uint32_t)size;
    memcpy(at, sizes, sizeof sizes);
    memcpy(at + sizeof sizes, name, sizes[0]);
    out->used += sizeof sizes + sizes[0] + (size_t)size;
    return 0;
}

static int read_xattrs(int fd, Buffer *out)
{
    char names[XATTR_LIST_MAX];
    ssize_t size = flistxattr(fd, names, sizeof names);
    int error = 0;
    for (const char *name = names; !error && name < names + size; name += strlen(name) + 1)
        error = add_xattr(fd, name, out);
    return error;
}

/* Fill `out` up to the end of the file, or set -1 if there is more. */
static int read_whole(int fd, char *out, size_t room, Py_ssize_t *size)
{
    char beyond;
    ssize_t n;
    size_t used = 0;
    do {
        n = used < room ? read(fd, out + used, room - used) : read(fd, &beyond, 1);
        if (n < 0 && errno != EINTR)
            return errno;
        used += n > 0 ? (size_t)n : 0;
    } while (n && used <= room);
    *size = used <= room ? (Py_ssize_t)used : -1;
    return 0;
}

static int read_open(int fd, char *out, size_t room, uint64_t dev, Reading *reading)
{
    struct stat status;
    if (fstat(fd, &status))
        return errno;
    if (!S_ISREG(status.st_mode)) {
        reading->record = record_of(&status, dev);
        return 0;
    }
    int error = read_whole(fd, out, room, &reading->size);
    if (error)
        return error;
    if (fstat(fd, &status))
        return errno;
    reading->record = record_of(&status, dev);
    return read_xattrs(fd, &reading->xattrs);
}

static PyObject *xattrs_tuple(const Buffer *xattrs)
{
    PyObject *list = PyList_New(0), *tuple = NULL;
    for (size_t at = 0; list && at < xattrs->used;) {
        uint32_t sizes[2];
        memcpy(sizes, xattrs->bytes + at, sizeof sizes);
        const char *name = xattrs->bytes + at + sizeof sizes;
        PyObject *pair = Py_BuildValue("(y#y#)", name, (Py_ssize_t)sizes[0], name + sizes[0],
                                       (Py_ssize_t)sizes[1]);
        if (!pair || PyList_Append(list, pair))
            Py_CLEAR(list);
        Py_XDECREF(pair);
        at += sizeof sizes + sizes[0] + sizes[1];
    }
    if (list && !PyList_Sort(list))
        tuple = PyList_AsTuple(list);
    Py_XDECREF(list);
    return tuple;
}

/* Open, read and look at one file; returns errno. `reading` is all zero before. */
static int read_named(int dirfd, const char *name, char *out, size_t room, uint64_t dev, Reading *reading)
{
    int fd = open_quietly(dirfd, name, READ_FLAGS);
    if (fd < 0)
        return errno;
    int error = read_open(fd, out, room, dev, reading);
    close(fd);
    return error;
}

static PyObject *reading_tuple(const Reading *reading)
{
    PyObject *xattrs = reading->xattrs.used ? xattrs_tuple(&reading->xattrs) : PyTuple_New(0);
    return xattrs ? Py_BuildValue("(ny#N)", reading->size, (const char *)&reading->record,
                                  (Py_ssize_t)sizeof reading->record, xattrs)
                  : NULL;
}

typedef struct {
    const char *name;
    Py_ssize_t room;
    int error;
    Reading reading;
} Wanted;

/* What is wanted, from a tuple of (name, room); -1 and an exception if that is no such thing. */
static int parse_wanted(PyObject *pairs, Wanted *wanted, Py_ssize_t count, Py_ssize_t available)
{
    for (Py_ssize_t i = 0; i < count; i++) {
        if (!PyArg_ParseTuple(PyTuple_GetItem(pairs, i), "yn", &wanted[i].name, &wanted[i].room))
            return -1;
        if (wanted[i].room < 0 || wanted[i].room > available) {
            PyErr_SetString(PyExc_ValueError, "the files do not fit in the buffer");
            return -1;
        }
        available -= wanted[i].room;
    }
    return 0;
}

static PyObject *readings_list(const Wanted *wanted, Py_ssize_t count)
{
    PyObject *list = PyList_New(count);
    for (Py_ssize_t i = 0; list && i < count; i++) {
        PyObject *one = wanted[i].error ? PyLong_FromLong(wanted[i].error) : reading_tuple(&wanted[i].reading);
        if (!one || PyList_SetItem(list, i, one))
            Py_CLEAR(list);
    }
    return list;
}

static PyObject *read_files(PyObject *module, PyObject *args)
{
    int dirfd;
    PyObject *pairs, *result = NULL;
    Py_buffer buffer;
    unsigned long long dev;
    (void)module;
    if (!PyArg_ParseTuple(args, "iO!w*K:read_files", &dirfd, &PyTuple_Type, &pairs, &buffer, &dev))
        return NULL;
    Py_ssize_t count = PyTuple_Size(pairs);
    Wanted *wanted = calloc((size_t)count + 1, sizeof *wanted);
    if (!wanted) {
        PyErr_NoMemory();
    } else if (!parse_wanted(pairs, wanted, count, buffer.len)) {
        Py_BEGIN_ALLOW_THREADS
        char *out = buffer.buf;
        for (Py_ssize_t i = 0; i < count; i++) {
            Wanted *one = &wanted[i];
            one->error = read_named(dirfd, one->name, out, (size_t)one->room, dev, &one->reading);
            out += one->room;
        }
        Py_END_ALLOW_THREADS
        result = readings_list(wanted, count);
    }
    for (Py_ssize_t i = 0; wanted && i < count; i++)
        free(wanted[i].reading.xattrs.bytes);
    free(wanted);
    PyBuffer_Release(&buffer);
    return result;
}

static PyMethodDef methods[] = {
    {"list_folder", list_folder, METH_VARARGS,
     PyDoc_STR("list_folder(fd, segment_entries, /)\n--\n\nSegments of an open folder; see listing.py.")},
    {"read_files", read_files, METH_VARARGS,
     PyDoc_STR("read_files(dirfd, wanted, buffer, dev, /)\n--\n\nRead small files; see listing.py.")},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_folder",
    .m_doc = PyDoc_STR("List folders and read small files without the interpreter's lock."),
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__folder(void)
{
    return PyModuleDef_Init(&definition);
}
