/* Whole documents in buffers, found and merged. buffers.py is the definition; the two give the same bytes.
 *
 * A key of the usual types is made here, byte for byte as order.py makes it; for any other document, and for
 * one whose _id is not its first field, the caller's function is asked. That needs the interpreter's
 * lock, so it happens between the two long stretches without it: looking at all documents, and sorting.
 *
 * Memory: 40 bytes and a key (a few more than the _id has) a document, twice 40 while they are sorted.
 * Nothing here keeps state; all may run in any thread.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdlib.h>

#include "_keys.h"

/* Returns the size of the whole document at `at`, 0 if there is none. */
static size_t document_size(const unsigned char *at, size_t room)
{
    const uint8_t *end = document_end(at, at + room);
    return end && end - at <= DOCUMENT_MAX ? (size_t)(end - at) : 0;
}

typedef struct {
    uint64_t head; /* the key's first eight bytes, as a number that compares alike */
    const unsigned char *at;
    size_t key; /* where its key lies in the arena */
    uint32_t size, key_size;
    uint32_t part;
} Document;

typedef struct {
    Document *documents;
    size_t count, room;
    unsigned char *keys;
    size_t used, space;
} Found;

/* Sees to room for `more` bytes of keys; returns where they may be written, or NULL without memory. */
static unsigned char *arena_room(Found *found, size_t more)
{
    if (!found->keys || found->space - found->used < more) {
        size_t space = found->space + found->space / 2 + more + 4096;
        unsigned char *keys = realloc(found->keys, space);
        if (!keys)
            return NULL;
        found->keys = keys;
        found->space = space;
    }
    return found->keys + found->used;
}

/* Makes the key of a document: 1 if it did, 0 if the caller's function has to, -1 without memory. */
static int make_key(Found *found, Document *document)
{
    Value id;
    size_t need;
    if (!find_id(document->at, document->at + document->size, &id) || !(need = key_room(id)))
        return 0;
    uint8_t *to = arena_room(found, need), *end;
    if (!to)
        return -1;
    if (!(end = put_key(to, id)))
        return 0;
    document->key = found->used;
    document->key_size = (uint32_t)(end - to);
    found->used += document->key_size;
    return 1;
}

static void set_head(const Found *found, Document *document)
{
    unsigned char head[8] = {0};
    memcpy(head, found->keys + document->key, document->key_size < 8 ? document->key_size : 8);
    document->head = __builtin_bswap64(load64(head));
}

static int less(const Found *found, const Document *a, const Document *b)
{
    if (a->head != b->head)
        return a->head < b->head;
    size_t shorter = a->key_size < b->key_size ? a->key_size : b->key_size;
    int order = memcmp(found->keys + a->key, found->keys + b->key, shorter);
    return order ? order < 0 : a->key_size < b->key_size;
}

typedef struct {
    const unsigned char *at;
    size_t size;
    size_t consumed;
} Part;

/* Lists the documents of a part: 0, -1 without memory, 1 if it does not consist of whole documents. */
static int list_part(Found *found, Part *part, uint32_t number)
{
    size_t at = 0;
    while (at < part->size) {
        size_t size = document_size(part->at + at, part->size - at);
        if (!size)
            return 1;
        if (found->count == found->room) {
            size_t room = found->room * 2 + 1024;
            Document *documents = realloc(found->documents, room * sizeof *documents);
            if (!documents)
                return -1;
            found->documents = documents;
            found->room = room;
        }
        Document *document = &found->documents[found->count];
        *document = (Document){.at = part->at + at, .size = (uint32_t)size, .part = number, .key = SIZE_MAX};
        if (make_key(found, document) < 0)
            return -1;
        at += size;
        found->count++;
    }
    return 0;
}

/* Takes of each part what does not lie behind the bound, if there is one. */
static void take(Found *found, Part *parts, const unsigned char *bound, size_t bound_size)
{
    size_t kept = 0;
    for (size_t n = 0; n < found->count; n++) {
        Document *document = &found->documents[n];
        if (bound) {
            size_t shorter = document->key_size < bound_size ? document->key_size : bound_size;
            int order = memcmp(found->keys + document->key, bound, shorter);
            if (order > 0 || (!order && document->key_size > bound_size))
                continue;
        }
        Part *part = &parts[document->part];
        part->consumed = (size_t)(document->at - part->at) + document->size;
        found->documents[kept++] = *document;
    }
    found->count = kept;
}

/* Merges [from, middle) and [middle, to) of `a` into `b`; equal ones keep their order. */
static void merge_two(const Found *found, const Document *a, Document *b, size_t from, size_t middle, size_t to)
{
    size_t left = from, right = middle, at = from;
    if (left < middle && right < to && !less(found, &a[right], &a[middle - 1])) {
        memcpy(b + from, a + from, (to - from) * sizeof *a);
        return;
    }
    while (left < middle && right < to)
        b[at++] = less(found, &a[right], &a[left]) ? a[right++] : a[left++];
    memcpy(b + at, a + left, (middle - left) * sizeof *a);
    at += middle - left;
    memcpy(b + at, a + right, (to - right) * sizeof *a);
}

/* Sorts by merging what is in order already, pair by pair: 0, -1 without memory. */
static int sort(Found *found)
{
    size_t count = found->count, runs = 0;
    size_t *starts = malloc((count + 2) * sizeof *starts);
    Document *other = malloc((count + 1) * sizeof *other);
    if (!starts || !other) {
        free(starts);
        free(other);
        return -1;
    }
    for (size_t n = 0; n < count; n++)
        if (!n || less(found, &found->documents[n], &found->documents[n - 1]))
            starts[runs++] = n;
    starts[runs] = count;
    while (runs > 1) {
        size_t merged = 0;
        for (size_t n = 0; n < runs; n += 2) {
            size_t middle = starts[n + 1], to = n + 2 <= runs ? starts[n + 2] : middle;
            merge_two(found, found->documents, other, starts[n], middle, to);
            starts[merged++] = starts[n];
        }
        starts[merged] = count;
        runs = merged;
        Document *swap = found->documents;
        found->documents = other;
        other = swap;
    }
    found->room = count;
    free(starts);
    free(other);
    return 0;
}

/* Asks the caller's function for the keys that make_key() left out; 0, or -1 with an exception. */
static int ask(Found *found, PyObject *key_of)
{
    for (size_t n = 0; n < found->count; n++) {
        Document *document = &found->documents[n];
        if (document->key == SIZE_MAX) {
            char *bytes;
            Py_ssize_t size;
            PyObject *key = PyObject_CallFunction(key_of, "y#", (const char *)document->at, (Py_ssize_t)document->size);
            if (!key || PyBytes_AsStringAndSize(key, &bytes, &size) < 0) {
                Py_XDECREF(key);
                return -1;
            }
            unsigned char *to = size > UINT32_MAX ? NULL : arena_room(found, (size_t)size);
            if (!to) {
                Py_DECREF(key);
                PyErr_NoMemory();
                return -1;
            }
            memcpy(to, bytes, (size_t)size);
            document->key = found->used;
            document->key_size = (uint32_t)size;
            found->used += (size_t)size;
            Py_DECREF(key);
        }
        set_head(found, document);
    }
    return 0;
}

static PyObject *result_of(const Part *parts, size_t count, size_t size)
{
    PyObject *consumed = PyTuple_New((Py_ssize_t)count);
    for (size_t n = 0; consumed && n < count; n++) {
        PyObject *number = PyLong_FromSize_t(parts[n].consumed);
        if (!number || PyTuple_SetItem(consumed, (Py_ssize_t)n, number) < 0)
            Py_CLEAR(consumed);
    }
    return consumed ? Py_BuildValue("(nN)", (Py_ssize_t)size, consumed) : NULL;
}

typedef struct {
    Part *parts;
    size_t count;
    const unsigned char *bound; /* NULL: none */
    size_t bound_size;
    unsigned char *out;
    size_t room;
    PyObject *key_of;
} Task;

static PyObject *merge_parts(const Task *task)
{
    Found found = {0};
    PyObject *result = NULL;
    size_t size = 0;
    int status = 0;
    Py_BEGIN_ALLOW_THREADS
    for (size_t n = 0; n < task->count && !status; n++)
        status = list_part(&found, &task->parts[n], (uint32_t)n);
    Py_END_ALLOW_THREADS
    if (status > 0)
        PyErr_SetString(PyExc_ValueError, "a part does not consist of whole documents");
    else if (status < 0)
        PyErr_NoMemory();
    else if (!ask(&found, task->key_of)) {
        Py_BEGIN_ALLOW_THREADS
        take(&found, task->parts, task->bound, task->bound_size);
        status = sort(&found);
        for (size_t n = 0; n < found.count; n++)
            size += found.documents[n].size;
        if (!status && size <= task->room) {
            unsigned char *to = task->out;
            for (size_t n = 0; n < found.count; to += found.documents[n++].size)
                memcpy(to, found.documents[n].at, found.documents[n].size);
        }
        Py_END_ALLOW_THREADS
        if (status)
            PyErr_NoMemory();
        else if (size > task->room)
            PyErr_SetString(PyExc_ValueError, "out is smaller than what goes into it");
        else
            result = result_of(task->parts, task->count, size);
    }
    free(found.documents);
    free(found.keys);
    return result;
}

static PyObject *merge(PyObject *module, PyObject *arguments)
{
    PyObject *list, *key_of, *result = NULL;
    Py_buffer out;
    const char *bound;
    Py_ssize_t bound_size, count, held = 0;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "Oz#w*O:merge", &list, &bound, &bound_size, &out, &key_of))
        return NULL;
    count = PySequence_Size(list);
    Py_buffer *views = count < 0 ? NULL : calloc((size_t)count + 1, sizeof *views);
    Part *parts = count < 0 ? NULL : calloc((size_t)count + 1, sizeof *parts);
    if (count >= 0 && (!views || !parts))
        PyErr_NoMemory();
    while (views && parts && held < count) {
        PyObject *part = PySequence_GetItem(list, held);
        int failed = !part || PyObject_GetBuffer(part, &views[held], PyBUF_SIMPLE) < 0;
        Py_XDECREF(part);
        if (failed)
            break;
        parts[held] = (Part){.at = views[held].buf, .size = (size_t)views[held].len};
        held++;
    }
    if (!PyErr_Occurred())
        result = merge_parts(&(Task){.parts = parts, .count = (size_t)count, .bound = (const unsigned char *)bound,
                                     .bound_size = (size_t)bound_size, .out = out.buf, .room = (size_t)out.len,
                                     .key_of = key_of});
    while (held)
        PyBuffer_Release(&views[--held]);
    free(views);
    free(parts);
    PyBuffer_Release(&out);
    return result;
}

static PyObject *whole(PyObject *module, PyObject *arguments)
{
    Py_buffer data;
    Py_ssize_t most, count = 0;
    size_t at = 0, last = 0, largest = 0, size;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*n:whole", &data, &most))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    const unsigned char *start = data.buf;
    while (count < most && (size = document_size(start + at, (size_t)data.len - at))) {
        last = at;
        at += size;
        largest = size > largest ? size : largest;
        count++;
    }
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&data);
    return Py_BuildValue("(nnnn)", (Py_ssize_t)at, count, (Py_ssize_t)last, (Py_ssize_t)largest);
}

static PyMethodDef methods[] = {
    {"whole", whole, METH_VARARGS,
     PyDoc_STR("whole(data, most, /)\n--\n\nWhere the whole documents end; see buffers.py.")},
    {"merge", merge, METH_VARARGS,
     PyDoc_STR("merge(parts, bound, out, key_of, /)\n--\n\nMerge documents by key; see buffers.py.")},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_buffers",
    .m_doc = PyDoc_STR("Find and merge whole documents without the interpreter's lock."),
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__buffers(void)
{
    return PyModuleDef_Init(&definition);
}
