/* The AES-window chunker: a fast copy of dedupstore/chunker/awindow.py, which defines it.
 *
 * With y[i] = b[i] ^ b[i - LAG], a chunk may end after byte i if and only if
 *     le32(AES128(key, y[i - 15 .. i])) < threshold.
 * Every position stands alone, so a kernel works on as many as the CPU has lanes for. All kernels
 * give the same cuts; the best one that this CPU can run comes first in KERNELS. Those that use AES
 * instructions are in _awindow_simd.h.
 *
 * Memory: the function that scans touches chunk[from - REACH .. to - 1] and nothing else, also not
 * by a load whose surplus bytes are thrown away. Data may change while it is read (a mapped file):
 * the cuts are then those of no single version, but no access goes astray and no loop hangs.
 *
 * Threads: no state but tables that are filled once while the module is made; `cuts` lets go of
 * the GIL. The portable kernel looks up tables by secret bytes, so on a CPU without AES
 * instructions its timing is visible to whoever shares that CPU's cache.
 */
#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030B0000
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 16                    /* bytes that go into AES for one position */
#define LAG 37                      /* odd, so that records of 4, 8, 16 or 48 bytes do not cancel out */
#define REACH (LAG + BLOCK - 1)     /* bytes before position i that its verdict depends on: 52 */
#define ROUNDS 10
#define SCHEDULE (BLOCK * (ROUNDS + 1))

/* Finds the first position in [from, to) whose value is less than `below`; returns `to` if none is.
 * Needs REACH <= from <= to and below > 0. */
typedef size_t scan_function(const uint8_t *schedule, const uint8_t *chunk, size_t from, size_t to,
                             uint32_t below);

/* ---- AES in plain C, for CPUs without AES instructions ---- */

static uint8_t substitute[256];
static uint32_t column_table[4][256];   /* SubBytes and MixColumns of a byte in row 0..3, little-endian */

static uint8_t times_two(uint8_t x)
{
    return (uint8_t)((x << 1) ^ (x & 0x80 ? 0x1b : 0));
}

static uint32_t rotate_left(uint32_t x, int bits)
{
    return x << bits | x >> (32 - bits);
}

static uint32_t load_le32(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* 3 generates the multiplicative group of GF(2^8): logarithms to it give the inverses. */
static void fill_tables(void)
{
    uint8_t power[256], logarithm[256] = {0}, x = 1;
    for (int e = 0; e < 255; e++) {
        power[e] = x;
        logarithm[x] = (uint8_t)e;
        x = (uint8_t)(x ^ times_two(x));
    }
    for (int v = 0; v < 256; v++) {
        uint32_t inverse = v ? power[(255 - logarithm[v]) % 255] : 0;
        uint32_t twice = inverse | inverse << 8;    /* a byte that rotates by plain shifts */
        uint8_t s = (uint8_t)(twice ^ twice >> 7 ^ twice >> 6 ^ twice >> 5 ^ twice >> 4 ^ 0x63);
        uint8_t s2 = times_two(s);
        substitute[v] = s;
        column_table[0][v] = s2 | (uint32_t)s << 8 | (uint32_t)s << 16 | (uint32_t)(s2 ^ s) << 24;
        for (int row = 1; row < 4; row++)
            column_table[row][v] = rotate_left(column_table[0][v], 8 * row);
    }
}

/* One column of the state after a round: bytes of four columns come together, then the round key. */
static inline uint32_t column(uint32_t a, uint32_t b, uint32_t c, uint32_t d, const uint8_t *key)
{
    return column_table[0][a & 255] ^ column_table[1][b >> 8 & 255] ^ column_table[2][c >> 16 & 255] ^
           column_table[3][d >> 24] ^ load_le32(key);
}

static uint32_t value_portable(const uint8_t *schedule, const uint8_t *at)
{
    const uint8_t *newer = at - (BLOCK - 1), *older = newer - LAG, *last = schedule + BLOCK * ROUNDS;
    uint32_t a = load_le32(newer) ^ load_le32(older) ^ load_le32(schedule);
    uint32_t b = load_le32(newer + 4) ^ load_le32(older + 4) ^ load_le32(schedule + 4);
    uint32_t c = load_le32(newer + 8) ^ load_le32(older + 8) ^ load_le32(schedule + 8);
    uint32_t d = load_le32(newer + 12) ^ load_le32(older + 12) ^ load_le32(schedule + 12);
    for (const uint8_t *key = schedule + BLOCK; key < last; key += BLOCK) {
        uint32_t a2 = column(a, b, c, d, key), b2 = column(b, c, d, a, key + 4);
        uint32_t c2 = column(c, d, a, b, key + 8), d2 = column(d, a, b, c, key + 12);
        a = a2, b = b2, c = c2, d = d2;
    }
    /* The last round mixes no columns, and only its first column is looked at. */
    return ((uint32_t)substitute[a & 255] | (uint32_t)substitute[b >> 8 & 255] << 8 |
            (uint32_t)substitute[c >> 16 & 255] << 16 | (uint32_t)substitute[d >> 24] << 24) ^
           load_le32(last);
}

static size_t scan_portable(const uint8_t *schedule, const uint8_t *chunk, size_t from, size_t to,
                            uint32_t below)
{
    for (; from < to; from++)
        if (value_portable(schedule, chunk + from) < below)
            return from;
    return to;
}

static int usable_always(void)
{
    return 1;
}

#include "_awindow_simd.h"

static const struct kernel {
    const char *name;
    scan_function *scan;
    int (*usable)(void);
} KERNELS[] = {
#if defined(HAVE_X86_KERNELS)
    {"vaes512", scan_vaes512, usable_vaes512},
    {"vaes256", scan_vaes256, usable_vaes256},
    {"aesni", scan_aesni, usable_aesni},
#endif
#if defined(HAVE_NEON_KERNEL)
    {"neon", scan_neon, usable_neon},
#endif
    {"c", scan_portable, usable_always},
};
#define KERNEL_COUNT (sizeof KERNELS / sizeof KERNELS[0])

/* ---- where chunks end ---- */

struct rule {
    const uint8_t *schedule;
    scan_function *scan;
    size_t min_size, normal, max_size;
    uint32_t strict, loose;
};

/* Returns the length of the chunk that begins at `chunk`, or 0 if `size` bytes do not settle it. */
static size_t chunk_length(const struct rule *rule, const uint8_t *chunk, size_t size)
{
    size_t end = size < rule->max_size ? size : rule->max_size;
    size_t middle = rule->normal < end ? rule->normal : end;
    size_t at = middle;
    if (size < rule->min_size)
        return 0;
    if (rule->strict)
        at = rule->scan(rule->schedule, chunk, rule->min_size - 1, middle, rule->strict);
    if (at < middle)
        return at + 1;
    at = end;
    if (rule->loose)
        at = rule->scan(rule->schedule, chunk, middle, end, rule->loose);
    if (at < end)
        return at + 1;
    return end == rule->max_size ? end : 0;
}

/* Writes the ends of the chunks in `data` and returns their number; at most size / min_size + 1. */
static size_t find_ends(const struct rule *rule, const uint8_t *data, size_t size, int final, size_t *ends)
{
    size_t start = 0, count = 0;
    while (start < size) {
        size_t length = chunk_length(rule, data + start, size - start);
        if (!length) {
            if (final)
                ends[count++] = size;
            break;
        }
        start += length;
        ends[count++] = start;
    }
    return count;
}

/* ---- Python ---- */

static PyObject *py_kernels(PyObject *module, PyObject *unused)
{
    PyObject *names = PyList_New(0), *result;
    (void)module;
    (void)unused;
    if (!names)
        return NULL;
    for (size_t i = 0; i < KERNEL_COUNT; i++) {
        PyObject *name = KERNELS[i].usable() ? PyUnicode_FromString(KERNELS[i].name) : NULL;
        int failed = name ? PyList_Append(names, name) < 0 : PyErr_Occurred() != NULL;
        Py_XDECREF(name);
        if (failed) {
            Py_DECREF(names);
            return NULL;
        }
    }
    result = PyList_AsTuple(names);
    Py_DECREF(names);
    return result;
}

static scan_function *choose_scan(const char *name)
{
    for (size_t i = 0; i < KERNEL_COUNT; i++)
        if ((!name || strcmp(KERNELS[i].name, name) == 0) && KERNELS[i].usable())
            return KERNELS[i].scan;
    PyErr_Format(PyExc_ValueError, "this CPU has no chunker kernel %s", name);
    return NULL;
}

static PyObject *list_of(const size_t *ends, size_t count)
{
    PyObject *list = PyList_New((Py_ssize_t)count);
    for (size_t i = 0; list && i < count; i++) {
        PyObject *end = PyLong_FromSize_t(ends[i]);
        if (!end || PyList_SetItem(list, (Py_ssize_t)i, end) < 0)
            Py_CLEAR(list);
    }
    return list;
}

static PyObject *cuts_of(struct rule *rule, const Py_buffer *data, int final)
{
    size_t size = (size_t)data->len, count;
    size_t *ends = malloc((size / rule->min_size + 1) * sizeof *ends);
    PyObject *list;
    if (!ends)
        return PyErr_NoMemory();
    Py_BEGIN_ALLOW_THREADS
    count = find_ends(rule, data->buf, size, final, ends);
    Py_END_ALLOW_THREADS
    list = list_of(ends, count);
    free(ends);
    return list;
}

static PyObject *py_cuts(PyObject *module, PyObject *arguments)
{
    struct rule rule;
    const char *schedule, *kernel = NULL;
    Py_ssize_t schedule_size;
    Py_buffer data;
    int final;
    long long min_size, normal, max_size, strict, loose;
    PyObject *result = NULL;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y#y*pLLLLL|z:cuts", &schedule, &schedule_size, &data, &final, &min_size,
                          &normal, &max_size, &strict, &loose, &kernel))
        return NULL;
    if (schedule_size != SCHEDULE)
        PyErr_Format(PyExc_ValueError, "schedule must have %d bytes, not %zd", SCHEDULE, schedule_size);
    else if (min_size <= REACH || normal < min_size || max_size < normal || max_size > INT32_MAX)
        PyErr_SetString(PyExc_ValueError, "sizes must be 52 < min_size <= normal <= max_size < 2**31");
    else if (strict < 0 || strict > UINT32_MAX || loose < 0 || loose > UINT32_MAX)
        PyErr_SetString(PyExc_ValueError, "thresholds must be from 0 to 2**32 - 1");
    else if ((rule.scan = choose_scan(kernel)) != NULL) {
        rule.schedule = (const uint8_t *)schedule;
        rule.min_size = (size_t)min_size;
        rule.normal = (size_t)normal;
        rule.max_size = (size_t)max_size;
        rule.strict = (uint32_t)strict;
        rule.loose = (uint32_t)loose;
        result = cuts_of(&rule, &data, final);
    }
    PyBuffer_Release(&data);
    return result;
}

static PyMethodDef METHODS[] = {
    {"kernels", py_kernels, METH_NOARGS, "Return the names of the kernels this CPU can run, best first."},
    {"cuts", py_cuts, METH_VARARGS,
     "cuts(schedule, data, final, min_size, normal, max_size, strict, loose, kernel=None)\n--\n\n"
     "Return the ends of the whole chunks in data; kernel None is the best one."},
    {NULL, NULL, 0, NULL},
};

static int execute(PyObject *module)
{
    (void)module;
    if (!substitute[0])
        fill_tables();
    return 0;
}

static PyModuleDef_Slot SLOTS[] = {
    {Py_mod_exec, (void *)execute},
    {0, NULL},
};

static struct PyModuleDef DEFINITION = {
    PyModuleDef_HEAD_INIT, "_awindow", "Compiled kernels of the AES-window chunker.", 0, METHODS, SLOTS,
    NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__awindow(void)
{
    return PyModuleDef_Init(&DEFINITION);
}
