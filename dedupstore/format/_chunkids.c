/* The ids of many chunks of one buffer in one call: keyed BLAKE3 without the interpreter's lock. chunkids.py defines it.
 *
 * Small chunks leave a hash nothing to do in parallel by themselves, so the lanes of a vector belong to pieces of
 * 1 KiB of whichever chunk comes next, and then to the inner nodes of all their trees, level by level.
 *
 * Memory: 36 bytes for each KiB of the buffer. Reads nothing outside the pieces, which must not change meanwhile. No
 * state; any thread.
 */
#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030B0000
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { LANES = 8, BLOCK = 64, LEAF = 1024, ID = 32, ENTRY = 36 };
enum { START = 1, END = 2, PARENT = 4, ROOT = 8, KEYED = 16 };

typedef uint32_t Lanes __attribute__((vector_size(4 * LANES)));

static const uint32_t IV[4] = {0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A};

/* Which word of the block goes where in each of the seven rounds. */
static const uint8_t ORDER[7][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8},
    {3, 4, 10, 12, 13, 2, 7, 14, 6, 5, 9, 0, 11, 15, 8, 1}, {10, 7, 12, 9, 14, 3, 13, 15, 4, 0, 11, 2, 5, 8, 1, 6},
    {12, 13, 9, 11, 15, 10, 14, 8, 7, 2, 5, 3, 0, 1, 6, 4}, {9, 14, 11, 5, 8, 12, 15, 1, 13, 3, 0, 10, 2, 6, 4, 7},
    {11, 15, 5, 0, 1, 9, 8, 6, 14, 10, 2, 12, 3, 4, 7, 13},
};

/* What is to be hashed: blocks one after the other, from the key to one value of 32 bytes. */
typedef struct {
    const uint8_t *at;
    uint32_t size, number, flags, last; /* bytes; which leaf of its chunk; flags of every and of the last block */
    uint8_t *out;
} Job;

static inline uint32_t load32(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static inline void store32(uint8_t *to, uint32_t number)
{
    for (int n = 0; n < 4; n++)
        to[n] = (uint8_t)(number >> 8 * n);
}

#define INLINE static inline __attribute__((always_inline))
#define TURN(x, n) ((x) >> (n) | (x) << (32 - (n)))
#define MIX(a, b, c, d, x, y) \
    do { \
        a += b + m[order[x]], d = turn_bytes(d ^ a, 2, wide), c += d, b = TURN(b ^ c, 12); \
        a += b + m[order[y]], d = turn_bytes(d ^ a, 1, wide), c += d, b = TURN(b ^ c, 7); \
    } while (0)

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define SHUFFLES
#endif
#endif

#ifdef SHUFFLES
typedef uint8_t Bytes __attribute__((vector_size(4 * LANES)));
#define TURNED(at, n) (at) + (n) % 4, (at) + (1 + (n)) % 4, (at) + (2 + (n)) % 4, (at) + (3 + (n)) % 4
#define ALL_TURNED(n) TURNED(0, n), TURNED(4, n), TURNED(8, n), TURNED(12, n), TURNED(16, n), TURNED(20, n), \
                      TURNED(24, n), TURNED(28, n)
#define PAIR(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#define LOW32(a, b) PAIR(a, b, 0, 8, 1, 9, 4, 12, 5, 13)
#define HIGH32(a, b) PAIR(a, b, 2, 10, 3, 11, 6, 14, 7, 15)
#define LOW64(a, b) PAIR(a, b, 0, 1, 8, 9, 4, 5, 12, 13)
#define HIGH64(a, b) PAIR(a, b, 2, 3, 10, 11, 6, 7, 14, 15)
#define LOW128(a, b) PAIR(a, b, 0, 1, 2, 3, 8, 9, 10, 11)
#define HIGH128(a, b) PAIR(a, b, 4, 5, 6, 7, 12, 13, 14, 15)
#endif

/* Turn right by so many bytes; where a shuffle of bytes is one instruction, by that. */
INLINE Lanes turn_bytes(Lanes x, int count, int wide)
{
#ifdef SHUFFLES
    if (wide && count == 2)
        return (Lanes)PAIR((Bytes)x, (Bytes)x, ALL_TURNED(2));
    if (wide && count == 1)
        return (Lanes)PAIR((Bytes)x, (Bytes)x, ALL_TURNED(1));
#else
    (void)wide;
#endif
    return TURN(x, 8 * count);
}

/* Take eight words of each block, so that each lane has those of its own. */
INLINE void take_words(Lanes *m, const uint8_t *const *blocks, size_t at, int wide)
{
#ifdef SHUFFLES
    if (wide) {
        Lanes r[8], s[8], t[8];
        for (int n = 0; n < LANES; n++)
            memcpy(&r[n], blocks[n] + at, sizeof r[n]);
        for (int n = 0; n < 8; n += 2)
            s[n] = LOW32(r[n], r[n + 1]), s[n + 1] = HIGH32(r[n], r[n + 1]);
        for (int n = 0; n < 8; n += 4) {
            t[n] = LOW64(s[n], s[n + 2]), t[n + 1] = HIGH64(s[n], s[n + 2]);
            t[n + 2] = LOW64(s[n + 1], s[n + 3]), t[n + 3] = HIGH64(s[n + 1], s[n + 3]);
        }
        for (int n = 0; n < 4; n++)
            m[n] = LOW128(t[n], t[n + 4]), m[n + 4] = HIGH128(t[n], t[n + 4]);
        return;
    }
#else
    (void)wide;
#endif
    for (int w = 0; w < 8; w++)
        for (int n = 0; n < LANES; n++)
            m[w][n] = load32(blocks[n] + at + 4 * (size_t)w);
}

/* One block in every lane. */
INLINE void compress(Lanes *h, const uint8_t *const *blocks, Lanes number, Lanes size, Lanes flags, int wide)
{
    Lanes m[16], v[16];
    take_words(m, blocks, 0, wide);
    take_words(m + 8, blocks, BLOCK / 2, wide);
    for (int w = 0; w < 8; w++)
        v[w] = h[w];
    for (int w = 0; w < 4; w++)
        v[8 + w] = (Lanes){0} + IV[w];
    v[12] = number, v[13] = (Lanes){0}, v[14] = size, v[15] = flags;
#pragma GCC unroll 7
    for (int round = 0; round < 7; round++) {
        const uint8_t *order = ORDER[round];
        MIX(v[0], v[4], v[8], v[12], 0, 1);
        MIX(v[1], v[5], v[9], v[13], 2, 3);
        MIX(v[2], v[6], v[10], v[14], 4, 5);
        MIX(v[3], v[7], v[11], v[15], 6, 7);
        MIX(v[0], v[5], v[10], v[15], 8, 9);
        MIX(v[1], v[6], v[11], v[12], 10, 11);
        MIX(v[2], v[7], v[8], v[13], 12, 13);
        MIX(v[3], v[4], v[9], v[14], 14, 15);
    }
    for (int w = 0; w < 8; w++)
        h[w] = v[w] ^ v[8 + w];
}

/* Do all jobs; a lane that is done with one goes on to the next. */
INLINE void run_jobs(const uint8_t *key, const Job *jobs, size_t count, int wide)
{
    static const uint8_t NOTHING[BLOCK];
    uint8_t tails[LANES][BLOCK];
    const uint8_t *blocks[LANES];
    const Job *mine[LANES] = {NULL};
    uint32_t done[LANES] = {0};
    Lanes h[8] = {{0}}, number = {0}, size = {0}, flags = {0};
    size_t next = 0, busy = 0;
    for (;;) {
        for (int n = 0; n < LANES; n++) {
            if (!mine[n] && next < count) {
                mine[n] = &jobs[next++];
                done[n] = 0;
                number[n] = mine[n]->number;
                for (int w = 0; w < 8; w++)
                    h[w][n] = load32(key + 4 * w);
                busy++;
            }
            blocks[n] = NOTHING;
            if (!mine[n])
                continue;
            uint32_t left = mine[n]->size - done[n];
            blocks[n] = mine[n]->at + done[n];
            size[n] = left < BLOCK ? left : BLOCK;
            flags[n] = mine[n]->flags | (done[n] || (mine[n]->flags & PARENT) ? 0 : START);
            if (left <= BLOCK)
                flags[n] |= mine[n]->last;
            if (left < BLOCK) {
                memset(tails[n], 0, BLOCK);
                memcpy(tails[n], blocks[n], left);
                blocks[n] = tails[n];
            }
            done[n] += size[n];
        }
        if (!busy)
            return;
        compress(h, blocks, number, size, flags, wide);
        for (int n = 0; n < LANES; n++)
            if (mine[n] && done[n] == mine[n]->size) {
                for (int w = 0; w < 8; w++)
                    store32(mine[n]->out + 4 * w, h[w][n]);
                mine[n] = NULL;
                busy--;
            }
    }
}

static void run_plainly(const uint8_t *key, const Job *jobs, size_t count)
{
    run_jobs(key, jobs, count, 0);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static void run_avx2(const uint8_t *key, const Job *jobs, size_t count)
{
    run_jobs(key, jobs, count, 1);
}

__attribute__((target("avx2,avx512f,avx512vl"))) static void run_avx512(const uint8_t *key, const Job *jobs,
                                                                        size_t count)
{
    run_jobs(key, jobs, count, 1); /* as wide as with AVX2, but its rotations are one instruction */
}
#endif

static void run(const uint8_t *key, const Job *jobs, size_t count)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512vl")) {
        run_avx512(key, jobs, count);
        return;
    }
    if (__builtin_cpu_supports("avx2")) {
        run_avx2(key, jobs, count);
        return;
    }
#endif
    run_plainly(key, jobs, count);
}

typedef struct {
    size_t start, size;
    uint8_t *nodes; /* of the level that is done: 32 bytes each */
    size_t count;
} Piece;

/* The ids into `entries`; 0, or -1 without memory. `leaves` counts those of all pieces. */
static int hash_pieces(const uint8_t *key, const uint8_t *data, Piece *pieces, size_t count, size_t leaves,
                       uint8_t *entries)
{
    Job *jobs = malloc((leaves + 1) * sizeof *jobs);
    uint8_t *nodes = malloc((leaves + 1) * ID), *to = nodes;
    size_t left = 0, made = 0;
    if (!jobs || !nodes) {
        free(jobs);
        free(nodes);
        return -1;
    }
    for (size_t p = 0; p < count; p++) {
        Piece *piece = &pieces[p];
        piece->nodes = to;
        for (size_t at = 0; at < piece->size; at += LEAF, to += ID) {
            size_t size = piece->size - at < LEAF ? piece->size - at : LEAF;
            int alone = piece->size <= LEAF;
            jobs[made++] = (Job){data + piece->start + at, (uint32_t)size, (uint32_t)(at / LEAF), KEYED,
                                 END | (alone ? ROOT : 0), alone ? entries + ENTRY * p : to};
        }
        left += piece->count > 1;
        store32(entries + ENTRY * p + ID, (uint32_t)piece->size);
    }
    run(key, jobs, made);
    while (left) {
        made = left = 0;
        for (size_t p = 0; p < count; p++) {
            Piece *piece = &pieces[p];
            if (piece->count < 2)
                continue;
            int root = piece->count == 2;
            for (size_t n = 0; n + 1 < piece->count; n += 2)
                jobs[made++] = (Job){piece->nodes + ID * n, BLOCK, 0, KEYED | PARENT, root ? ROOT : 0,
                                     root ? entries + ENTRY * p : piece->nodes + ID * (n / 2)};
        }
        run(key, jobs, made);
        for (size_t p = 0; p < count; p++) {
            Piece *piece = &pieces[p];
            if (piece->count > 2 && piece->count % 2) /* the odd one goes up as it is */
                memmove(piece->nodes + ID * (piece->count / 2), piece->nodes + ID * (piece->count - 1), ID);
            piece->count = piece->count > 1 ? (piece->count + 1) / 2 : piece->count;
            left += piece->count > 1;
        }
    }
    free(jobs);
    free(nodes);
    return 0;
}

/* ---- Python ---- */

/* Take (start, end) of each piece; how many leaves they have together, 0 with an exception. */
static size_t take_pieces(PyObject *list, Py_ssize_t count, Py_ssize_t room, Piece *pieces)
{
    size_t leaves = 0;
    for (Py_ssize_t p = 0; p < count; p++) {
        PyObject *pair = PyList_GetItem(list, p);
        Py_ssize_t start, end;
        if (!pair || !PyArg_ParseTuple(pair, "nn", &start, &end))
            return 0;
        if (start < 0 || end <= start || end > room || end - start > UINT32_MAX) {
            PyErr_SetString(PyExc_ValueError, "pieces must lie within data and not be empty");
            return 0;
        }
        size_t size = (size_t)(end - start);
        pieces[p] = (Piece){(size_t)start, size, NULL, (size + LEAF - 1) / LEAF};
        leaves += pieces[p].count;
    }
    return leaves;
}

static PyObject *hash_all(const Py_buffer *key, const Py_buffer *data, PyObject *list)
{
    Py_ssize_t count = PyList_Size(list);
    Piece *pieces = malloc(((size_t)count + 1) * sizeof *pieces);
    PyObject *entries = pieces ? PyBytes_FromStringAndSize(NULL, count * ENTRY) : PyErr_NoMemory();
    size_t leaves = entries ? take_pieces(list, count, data->len, pieces) : 0;
    int failed = 0;
    if (leaves) {
        uint8_t *to = (uint8_t *)PyBytes_AsString(entries);
        Py_BEGIN_ALLOW_THREADS
        failed = hash_pieces(key->buf, data->buf, pieces, (size_t)count, leaves, to);
        Py_END_ALLOW_THREADS
        if (failed)
            PyErr_NoMemory();
    }
    free(pieces);
    if (PyErr_Occurred())
        Py_CLEAR(entries);
    return entries;
}

static PyObject *py_entries(PyObject *module, PyObject *arguments)
{
    Py_buffer key, data;
    PyObject *list, *result = NULL;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*y*O:entries", &key, &data, &list))
        return NULL;
    if (key.len != ID)
        PyErr_Format(PyExc_ValueError, "key must have %d bytes, not %zd", ID, key.len);
    else if (!PyList_Check(list))
        PyErr_SetString(PyExc_TypeError, "pieces must be a list of (start, end)");
    else
        result = hash_all(&key, &data, list);
    PyBuffer_Release(&key);
    PyBuffer_Release(&data);
    return result;
}

static PyMethodDef METHODS[] = {
    {"entries", py_entries, METH_VARARGS,
     "entries(key, data, pieces, /)\n--\n\nId and size of each piece, packed; see chunkids.py."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot SLOTS[] = {{0, NULL}};

static struct PyModuleDef DEFINITION = {
    PyModuleDef_HEAD_INIT, "_chunkids", "Ids of many chunks without the interpreter's lock.", 0, METHODS, SLOTS,
    NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__chunkids(void)
{
    return PyModuleDef_Init(&DEFINITION);
}
