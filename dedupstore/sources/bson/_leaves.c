/* Where leaves end: a fast copy of `walk` in leaves.py, which defines it.
 *
 * Walks over the documents of a window, hashes each `_id`, compares it with the one before, and notes where leaves
 * end. Whatever is wrong (damage, disorder where order was promised) or too rare to be worth code here (an `_id`
 * nested deeper than NESTING) makes it give up: it returns None, and the definition finds the words. An order that
 * only exact arithmetic settles (a decimal128, a large integer beside a double) is left undecided.
 *
 * Memory: reads nothing outside the window, which must not change meanwhile; 32 bytes a leaf. No state; `walk` lets
 * go of the GIL; any thread.
 */
#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030B0000
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdlib.h>

#include "_keys.h"

#define KEY_SIZE 16
#define LABEL_MAX 120

enum { ASCENDING, BROKEN, UNDECIDED };

/* order.RANKS; 0 for what is no type. */
static const uint8_t RANKS[256] = {
    [MIN_KEY] = 0x10, [UNDEFINED] = 0x18, [NIL] = 0x20, [DOUBLE] = 0x30, [INT32] = 0x30, [INT64] = 0x30,
    [DECIMAL128] = 0x30, [STRING] = 0x40, [SYMBOL] = 0x40, [OBJECT] = 0x50, [ARRAY] = 0x58, [BINARY] = 0x60,
    [OBJECT_ID] = 0x68, [BOOLEAN] = 0x70, [DATE] = 0x78, [TIMESTAMP] = 0x80, [REGEX] = 0x88,
    [DB_POINTER] = 0x90, [CODE] = 0x98, [CODE_W_SCOPE] = 0xA0, [MAX_KEY] = 0xF0,
};

/* ---- SipHash-2-4; siphash.py ---- */

static uint64_t rotate(uint64_t x, int bits)
{
    return x << bits | x >> (64 - bits);
}

#define SIP_ROUND \
    do { \
        v0 += v1, v1 = rotate(v1, 13) ^ v0, v0 = rotate(v0, 32); \
        v2 += v3, v3 = rotate(v3, 16) ^ v2; \
        v0 += v3, v3 = rotate(v3, 21) ^ v0; \
        v2 += v1, v1 = rotate(v1, 17) ^ v2, v2 = rotate(v2, 32); \
    } while (0)

/* Hash one byte followed by `size` more; there is none in front if `first` is negative. */
static uint64_t siphash(const uint8_t *key, int first, const uint8_t *data, size_t size)
{
    uint64_t k0 = load64(key), k1 = load64(key + 8), last = 0, word;
    uint64_t v0 = k0 ^ 0x736f6d6570736575, v1 = k1 ^ 0x646f72616e646f6d;
    uint64_t v2 = k0 ^ 0x6c7967656e657261, v3 = k1 ^ 0x7465646279746573;
    size_t lead = first >= 0, total = size + lead, words = total / 8;
    for (size_t i = 0; i < words; i++) {
        if (lead)
            word = i ? load64(data + 8 * i - 1) : (load64(data - 1) & ~(uint64_t)0xff) | (uint64_t)first;
        else
            word = load64(data + 8 * i);
        v3 ^= word;
        SIP_ROUND;
        SIP_ROUND;
        v0 ^= word;
    }
    for (size_t i = 8 * words, shift = 0; i < total; i++, shift += 8)
        last |= (uint64_t)(lead ? (i ? data[i - 1] : (uint8_t)first) : data[i]) << shift;
    last |= (uint64_t)total << 56;
    v3 ^= last;
    SIP_ROUND;
    SIP_ROUND;
    v0 ^= last;
    v2 ^= 0xff;
    SIP_ROUND;
    SIP_ROUND;
    SIP_ROUND;
    SIP_ROUND;
    return v0 ^ v1 ^ v2 ^ v3;
}

/* ---- order; order.py ---- */

static int three_way(const uint8_t *a, ptrdiff_t a_size, const uint8_t *b, ptrdiff_t b_size)
{
    int found = memcmp(a, b, (size_t)(a_size < b_size ? a_size : b_size));
    return found ? found : (a_size > b_size) - (a_size < b_size);
}

static int64_t integer_of(Value value)
{
    return value.type == INT32 ? (int32_t)load32(value.at) : (int64_t)load64(value.at);
}

static int compare_numbers(Value a, Value b, int *undecided)
{
    double x, y;
    if (a.type == DECIMAL128 || b.type == DECIMAL128) {
        *undecided |= a.type != b.type || memcmp(a.at, b.at, 16);
        return 0;
    }
    if (a.type != DOUBLE && b.type != DOUBLE) {
        int64_t i = integer_of(a), j = integer_of(b);
        return (i > j) - (i < j);
    }
    for (int side = 0; side < 2; side++) {
        Value value = side ? b : a;
        if (value.type != DOUBLE && (integer_of(value) > EXACT || integer_of(value) < -EXACT))
            *undecided = 1;
    }
    x = a.type == DOUBLE ? load_double(a.at) : (double)integer_of(a);
    y = b.type == DOUBLE ? load_double(b.at) : (double)integer_of(b);
    if (x != x || y != y)
        return (x == x) - (y == y);
    return (x > y) - (x < y);
}

static int compare(Value a, Value b, int *undecided);

/* Compare two sound documents; names count in objects, not in arrays. */
static int compare_fields(Value a, Value b, int named, int *undecided)
{
    const uint8_t *at = a.at + 4, *other = b.at + 4, *name, *other_name;
    int found;
    while (at < a.end - 1 && other < b.end - 1) {
        Value x, y;
        if (!next_field(&at, a.end - 1, &name, &x) || !next_field(&other, b.end - 1, &other_name, &y))
            break;  /* never: both are sound */
        if (RANKS[x.type] != RANKS[y.type])
            return RANKS[x.type] - RANKS[y.type];
        if (named && (found = three_way(name, x.at - name, other_name, y.at - other_name)) != 0)
            return found;
        if ((found = compare(x, y, undecided)) != 0 || *undecided)
            return found;
    }
    return (at < a.end - 1) - (other < b.end - 1);
}

/* Compare as the server does: less than, equal to or greater than 0. */
static int compare(Value a, Value b, int *undecided)
{
    int found;
    if (RANKS[a.type] != RANKS[b.type])
        return RANKS[a.type] - RANKS[b.type];
    switch (a.type) {
    case DOUBLE: case INT32: case INT64: case DECIMAL128:
        return compare_numbers(a, b, undecided);
    case STRING: case SYMBOL: case CODE:
        return three_way(a.at + 4, a.end - a.at - 5, b.at + 4, b.end - b.at - 5);
    case OBJECT: case ARRAY:
        return compare_fields(a, b, a.type == OBJECT, undecided);
    case BINARY: case DB_POINTER:
        if (a.end - a.at != b.end - b.at)
            return a.end - a.at < b.end - b.at ? -1 : 1;
        return memcmp(a.at + 4, b.at + 4, (size_t)(a.end - a.at - 4));
    case DATE: {
        int64_t x = (int64_t)load64(a.at), y = (int64_t)load64(b.at);
        return (x > y) - (x < y);
    }
    case TIMESTAMP: {
        uint64_t x = load64(a.at), y = load64(b.at);
        return (x > y) - (x < y);
    }
    case CODE_W_SCOPE: {
        Value x = {OBJECT, scope_of(a), a.end}, y = {OBJECT, scope_of(b), b.end};
        found = three_way(a.at + 8, x.at - a.at - 9, b.at + 8, y.at - b.at - 9);
        return found ? found : compare_fields(x, y, 1, undecided);
    }
    default:
        return three_way(a.at, a.end - a.at, b.at, b.end - b.at);
    }
}

/* ---- the walk; leaves.py ---- */

typedef struct {
    ptrdiff_t end;
    Value first;    /* `_id` of its first document */
} Leaf;

typedef struct {
    const uint8_t *key;
    int k, final, sorted;
    ptrdiff_t leaf_min, leaf_max;
    Value previous, first;
    Leaf *leaves;
    size_t count, room;
    ptrdiff_t documents, counted, last, newest, seen, leaf;
    int large, order;
} Walk;

enum { DONE, GIVEN_UP, NO_MEMORY };

static int cut(Walk *walk, ptrdiff_t at)
{
    if (walk->count == walk->room) {
        size_t room = walk->room ? 2 * walk->room : 64;
        Leaf *leaves = realloc(walk->leaves, room * sizeof *leaves);
        if (!leaves)
            return NO_MEMORY;
        walk->leaves = leaves;
        walk->room = room;
    }
    walk->leaves[walk->count++] = (Leaf){at, walk->first};
    walk->leaf = at;
    walk->documents = walk->counted;
    walk->last = walk->newest;
    return DONE;
}

static int follow(Walk *walk, Value id)
{
    int undecided = 0;
    if (!id.type || (walk->previous.type && compare(walk->previous, id, &undecided) > 0 && !undecided)) {
        walk->order = BROKEN;
        if (walk->sorted)
            return GIVEN_UP;
    }
    if (undecided && walk->order == ASCENDING)
        walk->order = UNDECIDED;
    walk->previous = id;
    return DONE;
}

static int take_document(Walk *walk, const uint8_t *data, ptrdiff_t at, ptrdiff_t length)
{
    const uint8_t *document = data + at, *end = document_end(document, document + length);
    Value id;
    uint64_t hash;
    if (!end || end != document + length || !find_id(document, end, &id) || follow(walk, id))
        return GIVEN_UP;
    if (at == walk->leaf)
        walk->first = id;
    walk->newest = at;
    walk->seen = at += length;
    walk->counted++;
    if (walk->leaf_max - (at - walk->leaf) < DOCUMENT_MIN)
        return cut(walk, at);
    if (at - walk->leaf < walk->leaf_min)
        return DONE;
    hash = id.type ? siphash(walk->key, id.type, id.at, (size_t)(id.end - id.at))
                   : siphash(walk->key, -1, document, (size_t)length);
    return !walk->k || !(hash >> (64 - walk->k)) ? cut(walk, at) : DONE;
}

static int find_leaves(Walk *walk, const uint8_t *data, ptrdiff_t size)
{
    int status = DONE;
    while (status == DONE && walk->seen < size) {
        ptrdiff_t at = walk->seen, length = size - at < 4 ? 0 : (int32_t)load32(data + at);
        if (size - at >= 4 && (length < DOCUMENT_MIN || length > DOCUMENT_MAX))
            return GIVEN_UP;
        if (length && at > walk->leaf && at - walk->leaf + length > walk->leaf_max)
            status = cut(walk, at);
        walk->large = length > walk->leaf_max;
        if (walk->large || status)
            return status;
        if (!length || length > size - at)
            return walk->final ? GIVEN_UP : DONE;
        status = take_document(walk, data, at, length);
    }
    if (status == DONE && walk->final && walk->leaf < walk->seen)
        status = cut(walk, walk->seen);
    return status;
}

/* ---- Python ---- */

/* The label of a leaf whose first `_id` this is: empty without order, None if the Python has to make it. */
static PyObject *label_of(const Walk *walk, Value first)
{
    uint8_t key[KEY_ROOM_MAX], *end;
    if (!walk->sorted)
        return PyBytes_FromStringAndSize(NULL, 0);
    if (!(end = put_key(key, first)))
        return Py_NewRef(Py_None);
    return PyBytes_FromStringAndSize((const char *)key, end - key > LABEL_MAX ? LABEL_MAX : end - key);
}

static PyObject *result_of(const Walk *walk)
{
    PyObject *ends = PyList_New((Py_ssize_t)walk->count), *labels = PyList_New((Py_ssize_t)walk->count);
    for (size_t i = 0; ends && labels && i < walk->count; i++) {
        PyObject *end = PyLong_FromSsize_t(walk->leaves[i].end), *label = label_of(walk, walk->leaves[i].first);
        if (!end || PyList_SetItem(ends, (Py_ssize_t)i, end) < 0)
            Py_CLEAR(ends);
        if (!label || PyList_SetItem(labels, (Py_ssize_t)i, label) < 0)
            Py_CLEAR(labels);
    }
    if (!ends || !labels) {
        Py_XDECREF(ends);
        Py_XDECREF(labels);
        return NULL;
    }
    return Py_BuildValue("(NNnnnNi)", ends, labels, walk->documents, walk->last, walk->seen,
                         PyBool_FromLong(walk->large), walk->order);
}

static int begin(Walk *walk, const Py_buffer *data, Py_ssize_t start, const Py_buffer *key,
                 const Py_buffer *previous)
{
    const uint8_t *at = previous->buf, *end = at + previous->len;
    if (key->len != KEY_SIZE)
        PyErr_Format(PyExc_ValueError, "key must have %d bytes, not %zd", KEY_SIZE, key->len);
    else if (walk->k < 0 || walk->k > 32)
        PyErr_SetString(PyExc_ValueError, "k must be from 0 to 32");
    else if (walk->leaf_min < 0 || walk->leaf_max < DOCUMENT_MIN || walk->leaf_min > walk->leaf_max)
        PyErr_SetString(PyExc_ValueError, "sizes must be 0 <= leaf_min <= leaf_max and 5 <= leaf_max");
    else if (start < 0 || start > data->len)
        PyErr_SetString(PyExc_ValueError, "start must lie within data");
    else if (previous->len) {
        walk->previous = (Value){*at, at + 1, end};
        if (value_end(*at, at + 1, end) != end || !sound(walk->previous, 0))
            PyErr_SetString(PyExc_ValueError, "previous must be an identity");
    }
    walk->key = key->buf;
    walk->leaf = walk->seen = start;
    walk->last = walk->newest = -1;
    return PyErr_Occurred() ? -1 : 0;
}

static PyObject *py_walk(PyObject *module, PyObject *arguments)
{
    Walk walk = {0};
    Py_buffer data, key, previous;
    Py_ssize_t start, leaf_min, leaf_max;
    PyObject *result = NULL;
    int status = DONE;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*npy*inny*p:walk", &data, &start, &walk.final, &key, &walk.k, &leaf_min,
                          &leaf_max, &previous, &walk.sorted))
        return NULL;
    walk.leaf_min = leaf_min;
    walk.leaf_max = leaf_max;
    if (!begin(&walk, &data, start, &key, &previous)) {
        Py_BEGIN_ALLOW_THREADS
        status = find_leaves(&walk, data.buf, data.len);
        Py_END_ALLOW_THREADS
        if (status == NO_MEMORY)
            PyErr_NoMemory();
        else
            result = status == DONE ? result_of(&walk) : Py_NewRef(Py_None);
    }
    free(walk.leaves);
    PyBuffer_Release(&data);
    PyBuffer_Release(&key);
    PyBuffer_Release(&previous);
    return result;
}

static PyObject *py_siphash(PyObject *module, PyObject *arguments)
{
    Py_buffer key, data;
    PyObject *result = NULL;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*y*:siphash", &key, &data))
        return NULL;
    if (key.len != KEY_SIZE)
        PyErr_Format(PyExc_ValueError, "key must have %d bytes, not %zd", KEY_SIZE, key.len);
    else {
        const uint8_t *bytes = data.buf;
        result = PyLong_FromUnsignedLongLong(
            data.len ? siphash(key.buf, bytes[0], bytes + 1, (size_t)data.len - 1)
                     : siphash(key.buf, -1, bytes, 0));
    }
    PyBuffer_Release(&key);
    PyBuffer_Release(&data);
    return result;
}

static PyMethodDef METHODS[] = {
    {"walk", py_walk, METH_VARARGS,
     "walk(data, start, final, key, k, leaf_min, leaf_max, previous, sorted, /)\n--\n\n"
     "The leaves of a window, or None where the definition must look; see leaves.py."},
    {"siphash", py_siphash, METH_VARARGS, "siphash(key, data, /)\n--\n\nSipHash-2-4; for tests."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot SLOTS[] = {{0, NULL}};

static struct PyModuleDef DEFINITION = {
    PyModuleDef_HEAD_INIT, "_leaves", "The walk over leaves without the interpreter's lock.", 0, METHODS, SLOTS,
    NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__leaves(void)
{
    return PyModuleDef_Init(&DEFINITION);
}
