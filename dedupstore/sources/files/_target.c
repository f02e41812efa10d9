/* The two calls that write back: whole small files, and the attributes of anything open.
 *
 * deposit.py is the definition; a property test holds this file to the same answers. It exists because
 * of the interpreter's lock alone: a record holds a hundred small files, each is six or seven system
 * calls, and here they are made in one stretch with the lock released.
 *
 * Nothing is kept between calls. Limited API, so one build serves every Python from 3.11 on.
 */
#define PY_SSIZE_T_CLEAN
#define _GNU_SOURCE
#include <Python.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

/* An outcome is one number: errno of what failed, or 0; what only a privileged user may set and was
 * not set; errno of the last attribute that could not be set. deposit.py has the same three. */
#define REFUSED 0x10000
#define XATTR_SHIFT 20

#define STRIP_ACL 0x10000 /* in a mode: take off what the folder's default ACL gave */

typedef struct {
    const char *name;
    const void *value;
    size_t size;
} Xattr;

typedef struct {
    unsigned mode;
    uid_t uid;
    gid_t gid;
    struct timespec mtime;
    Xattr *xattrs;
    Py_ssize_t xattr_count;
} Dress;

typedef struct {
    int dirfd;
    const char *name;
    Py_ssize_t start;
    Py_ssize_t size;
    Dress dress;
    long outcome;
} Job;

static int
is_plain_name(const char *name, Py_ssize_t length)
{
    if (length == 0 || memchr(name, '/', (size_t)length) || memchr(name, '\0', (size_t)length)) {
        return 0;
    }
    return strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

static int
is_privileged(const char *name)
{
    return strncmp(name, "trusted.", 8) == 0 || strncmp(name, "security.", 9) == 0;
}

/* Apply attributes to an open file or folder. The order matters: a change of owner takes set-id bits and
 * capabilities off; user attributes need the write permission that the final mode may not give; an ACL
 * changes the mode. No interpreter here. */
static long
dress_fd(int fd, const Dress *dress)
{
    struct stat now;
    if (fstat(fd, &now) != 0) {
        return errno;
    }
    long outcome = 0;
    mode_t mode = dress->mode & 07777;
    int touched = dress->xattr_count > 0; /* the mode may no longer be what fstat saw */
    if (now.st_uid != dress->uid || now.st_gid != dress->gid) {
        if (fchown(fd, dress->uid, dress->gid) != 0) {
            if (errno != EPERM && errno != EINVAL) {
                return errno;
            }
            outcome |= REFUSED;
            if (now.st_uid != dress->uid) {
                mode &= ~(mode_t)S_ISUID; /* would now run as somebody else */
            }
            if (now.st_gid != dress->gid && fchown(fd, (uid_t)-1, dress->gid) != 0) {
                mode &= ~(mode_t)(S_ISDIR(now.st_mode) ? 0 : S_ISGID);
            }
        }
        touched = 1;
    }
    if (dress->mode & STRIP_ACL) {
        fremovexattr(fd, "system.posix_acl_access");
        touched = 1;
    }
    for (Py_ssize_t i = 0; i < dress->xattr_count; i++) {
        const Xattr *attr = &dress->xattrs[i];
        if (fsetxattr(fd, attr->name, attr->value, attr->size, 0) != 0) {
            if (is_privileged(attr->name) && (errno == EPERM || errno == EACCES)) {
                outcome |= REFUSED;
            } else {
                outcome = (outcome & 0xFFFFF) | ((long)errno << XATTR_SHIFT);
            }
        }
    }
    if ((touched || (now.st_mode & 07777) != mode) && fchmod(fd, mode) != 0) {
        return errno;
    }
    struct timespec times[2] = {{0, UTIME_OMIT}, dress->mtime};
    if (futimens(fd, times) != 0) {
        return errno;
    }
    return outcome;
}

static int
write_all(int fd, const char *data, Py_ssize_t size)
{
    off_t offset = 0;
    while (size > 0) {
        ssize_t done = pwrite(fd, data + offset, (size_t)size, offset);
        if (done < 0) {
            if (errno == EINTR) {
                continue;
            }
            return -1;
        }
        offset += done;
        size -= done;
    }
    return 0;
}

/* The mode to make a file with. Its own, which mostly saves a change, where that lets nobody read what they
 * may not: it will be ours, and its group (perhaps that of the folder until then) may do what everybody may. */
static mode_t
first_mode(const Dress *dress)
{
    mode_t mode = dress->mode & 0777;
    int ours = dress->uid == geteuid() && dress->gid == getegid() && !(dress->mode & STRIP_ACL);
    return ours && !dress->xattr_count && (mode >> 3 & 7) == (mode & 7) ? mode : 0600;
}

static long
deposit_one(const char *data, const char *temp, const Job *job)
{
    const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    mode_t mode = first_mode(&job->dress);
    int fd = openat(job->dirfd, temp, flags, mode);
    if (fd < 0 && errno == EEXIST && unlinkat(job->dirfd, temp, 0) == 0) {
        fd = openat(job->dirfd, temp, flags, mode); /* left behind by an earlier run */
    }
    if (fd < 0) {
        return errno;
    }
    long outcome = write_all(fd, data + job->start, job->size) == 0 ? dress_fd(fd, &job->dress) : errno;
    if (close(fd) != 0 && errno != EINTR && !(outcome & 0xFFFF)) {
        outcome = errno;
    }
    if (!(outcome & 0xFFFF) && renameat(job->dirfd, temp, job->dirfd, job->name) != 0) {
        outcome = errno;
    }
    if (outcome & 0xFFFF) {
        unlinkat(job->dirfd, temp, 0);
    }
    return outcome;
}

static int
parse_xattrs(PyObject *pairs, Dress *dress)
{
    dress->xattrs = NULL;
    dress->xattr_count = PyTuple_Size(pairs);
    if (dress->xattr_count <= 0) {
        return dress->xattr_count == 0 ? 0 : -1;
    }
    dress->xattrs = PyMem_Malloc((size_t)dress->xattr_count * sizeof(Xattr));
    if (dress->xattrs == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < dress->xattr_count; i++) {
        PyObject *name, *value;
        char *text, *bytes;
        Py_ssize_t size;
        PyObject *pair = PyTuple_GetItem(pairs, i);
        if (pair == NULL || !PyArg_ParseTuple(pair, "SS", &name, &value)
            || PyBytes_AsStringAndSize(name, &text, NULL) < 0
            || PyBytes_AsStringAndSize(value, &bytes, &size) < 0) {
            return -1;
        }
        dress->xattrs[i] = (Xattr){text, bytes, (size_t)size};
    }
    return 0;
}

static void
split_time(long long nanoseconds, struct timespec *time)
{
    long long seconds = nanoseconds / 1000000000, rest = nanoseconds % 1000000000;
    if (rest < 0) {
        rest += 1000000000;
        seconds -= 1;
    }
    time->tv_sec = (time_t)seconds;
    time->tv_nsec = (long)rest;
}

static int
parse_job(PyObject *item, Py_ssize_t available, Job *job)
{
    PyObject *name, *xattrs;
    char *text;
    Py_ssize_t length;
    unsigned uid, gid;
    long long mtime;
    job->dress.xattrs = NULL;
    job->outcome = 0;
    if (!PyArg_ParseTuple(item, "iSnnIIILO", &job->dirfd, &name, &job->start, &job->size,
                          &job->dress.mode, &uid, &gid, &mtime, &xattrs)
        || PyBytes_AsStringAndSize(name, &text, &length) < 0) {
        return -1;
    }
    if (job->start < 0 || job->size < 0 || job->start > available - job->size) {
        PyErr_SetString(PyExc_ValueError, "a file lies outside the buffer");
        return -1;
    }
    job->name = text;
    job->dress.uid = uid;
    job->dress.gid = gid;
    split_time(mtime, &job->dress.mtime);
    if (!is_plain_name(text, length)) {
        job->outcome = EINVAL;
    }
    return parse_xattrs(xattrs, &job->dress);
}

static PyObject *
outcomes_of(const Job *jobs, Py_ssize_t count)
{
    PyObject *list = PyList_New(count);
    for (Py_ssize_t i = 0; list != NULL && i < count; i++) {
        PyObject *number = PyLong_FromLong(jobs[i].outcome);
        if (number == NULL || PyList_SetItem(list, i, number) < 0) {
            Py_CLEAR(list);
        }
    }
    return list;
}

static PyObject *
deposit(PyObject *module, PyObject *args)
{
    Py_buffer data;
    PyObject *temp, *list;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*SO!", &data, &temp, &PyList_Type, &list)) {
        return NULL;
    }
    PyObject *items = PyList_AsTuple(list); /* holds every name while the lock is released */
    Py_ssize_t count = items == NULL ? 0 : PyTuple_Size(items), parsed = 0;
    Job *jobs = items == NULL ? NULL : PyMem_Malloc((size_t)(count + 1) * sizeof(Job));
    PyObject *result = NULL;
    if (jobs == NULL) {
        if (items != NULL) {
            PyErr_NoMemory();
        }
        goto done;
    }
    for (; parsed < count; parsed++) {
        if (parse_job(PyTuple_GetItem(items, parsed), data.len, &jobs[parsed]) < 0) {
            PyMem_Free(jobs[parsed].dress.xattrs);
            goto done;
        }
    }
    const char *hidden = PyBytes_AsString(temp);
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t i = 0; i < count; i++) {
        if (!jobs[i].outcome) {
            jobs[i].outcome = deposit_one(data.buf, hidden, &jobs[i]);
        }
    }
    Py_END_ALLOW_THREADS
    result = outcomes_of(jobs, count);
done:
    for (Py_ssize_t i = 0; i < parsed; i++) {
        PyMem_Free(jobs[i].dress.xattrs);
    }
    PyMem_Free(jobs);
    Py_XDECREF(items);
    PyBuffer_Release(&data);
    return result;
}

static PyObject *
dress(PyObject *module, PyObject *args)
{
    int fd;
    unsigned uid, gid;
    long long mtime;
    PyObject *xattrs;
    Dress wanted = {0};
    long outcome = 0;
    (void)module;
    if (!PyArg_ParseTuple(args, "iIIILO", &fd, &wanted.mode, &uid, &gid, &mtime, &xattrs)) {
        return NULL;
    }
    wanted.uid = uid;
    wanted.gid = gid;
    split_time(mtime, &wanted.mtime);
    if (parse_xattrs(xattrs, &wanted) < 0) {
        PyMem_Free(wanted.xattrs);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    outcome = dress_fd(fd, &wanted);
    Py_END_ALLOW_THREADS
    PyMem_Free(wanted.xattrs);
    return PyLong_FromLong(outcome);
}

static PyMethodDef methods[] = {
    {"deposit", deposit, METH_VARARGS, 
     PyDoc_STR("deposit(data, temp, jobs, /)\n--\n\nWrite whole files; see deposit.py.")},
    {"dress", dress, METH_VARARGS, 
     PyDoc_STR("dress(fd, mode, uid, gid, mtime, xattrs, /)\n--\n\nApply attributes; see deposit.py.")},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_target",
    .m_doc = PyDoc_STR("Write files back without the interpreter's lock; see deposit.py."),
    .m_size = 0,
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__target(void)
{
    return PyModuleDef_Init(&definition);
}
