/* CRC-64/XZ. crc64.py is the definition; all ways here give the same numbers.
 *
 * By tables, sixteen bytes a step: table k says what a byte comes to that stands k places before the end of
 * a step, so that the look-ups of a step do not wait for each other. By carry-less multiplication, where
 * the processor has it: 64 bytes a step, folded into four registers and at the end into one, which the
 * tables reduce. Tables (32 KiB) and constants are made when the module is loaded and never changed after;
 * any thread may call.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define FOLDING 1
#endif

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "elsewhere crc64.py does the work");

enum { STEP = 16 };

static const uint64_t POLYNOMIAL = 0xC96C5795D7870F42u;
static uint64_t tables[STEP][256];

static void make_tables(void)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        uint64_t crc = byte;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? POLYNOMIAL : 0);
        tables[0][byte] = crc;
    }
    for (int k = 1; k < STEP; k++)
        for (unsigned byte = 0; byte < 256; byte++)
            tables[k][byte] = tables[k - 1][byte] >> 8 ^ tables[0][tables[k - 1][byte] & 0xFF];
}

static uint64_t run(uint64_t crc, const unsigned char *at, size_t size)
{
    for (; size >= STEP; at += STEP, size -= STEP) {
        uint64_t low, high;
        memcpy(&low, at, 8);
        memcpy(&high, at + 8, 8);
        low ^= crc;
        crc = 0;
        for (int k = 0; k < 8; k++) {
            crc ^= tables[15 - k][low >> 8 * k & 0xFF];
            crc ^= tables[7 - k][high >> 8 * k & 0xFF];
        }
    }
    while (size--)
        crc = crc >> 8 ^ tables[0][(crc ^ *at++) & 0xFF];
    return crc;
}

#ifdef FOLDING
enum { FOLD_STEP = 64 };

/* What the two halves of a register are multiplied with to move it by so many bits. */
typedef struct {
    uint64_t low, high;
} Shift;

static Shift step_shift, register_shift;

/* x**power modulo the polynomial, the highest power in the lowest bit as everywhere here. */
static uint64_t power_of_x(int power)
{
    uint64_t value = (uint64_t)1 << 63;
    while (power--)
        value = value >> 1 ^ (value & 1 ? POLYNOMIAL : 0);
    return value;
}

/* A product of two reversed numbers comes out one bit too far, hence one power less. */
static Shift shift_by(int bits)
{
    return (Shift){.low = power_of_x(bits + 63), .high = power_of_x(bits - 1)};
}

__attribute__((target("pclmul,sse2"))) static inline __m128i moved(__m128i value, __m128i factors)
{
    return _mm_xor_si128(_mm_clmulepi64_si128(value, factors, 0x00), _mm_clmulepi64_si128(value, factors, 0x11));
}

__attribute__((target("pclmul,sse2"))) static uint64_t fold(uint64_t crc, const unsigned char *at, size_t size)
{
    const __m128i by_step = _mm_set_epi64x((long long)step_shift.high, (long long)step_shift.low);
    const __m128i by_register = _mm_set_epi64x((long long)register_shift.high, (long long)register_shift.low);
    const __m128i *from = (const __m128i *)at;
    __m128i a = _mm_xor_si128(_mm_loadu_si128(from), _mm_set_epi64x(0, (long long)crc));
    __m128i b = _mm_loadu_si128(from + 1), c = _mm_loadu_si128(from + 2), d = _mm_loadu_si128(from + 3);
    unsigned char last[16];
    for (from += 4, size -= FOLD_STEP; size >= FOLD_STEP; from += 4, size -= FOLD_STEP) {
        a = _mm_xor_si128(moved(a, by_step), _mm_loadu_si128(from));
        b = _mm_xor_si128(moved(b, by_step), _mm_loadu_si128(from + 1));
        c = _mm_xor_si128(moved(c, by_step), _mm_loadu_si128(from + 2));
        d = _mm_xor_si128(moved(d, by_step), _mm_loadu_si128(from + 3));
    }
    b = _mm_xor_si128(moved(a, by_register), b);
    c = _mm_xor_si128(moved(b, by_register), c);
    d = _mm_xor_si128(moved(c, by_register), d);
    _mm_storeu_si128((__m128i *)last, d);
    return run(run(0, last, sizeof last), (const unsigned char *)from, size);
}
#endif

static uint64_t (*best)(uint64_t, const unsigned char *, size_t) = run;

static PyObject *crc64(PyObject *module, PyObject *arguments)
{
    Py_buffer data;
    unsigned long long crc = 0;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*|K:crc64", &data, &crc))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    crc = ~(data.len < 256 ? run : best)(~(uint64_t)crc, data.buf, (size_t)data.len);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&data);
    return PyLong_FromUnsignedLongLong(crc);
}

static PyMethodDef methods[] = {
    {"crc64", crc64, METH_VARARGS, PyDoc_STR("crc64(data, crc=0, /)\n--\n\nGo on with a checksum; see crc64.py.")},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_crc64",
    .m_doc = PyDoc_STR("CRC-64/XZ without the interpreter's lock."),
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__crc64(void)
{
    make_tables();
#ifdef FOLDING
    step_shift = shift_by(8 * FOLD_STEP);
    register_shift = shift_by(128);
    if (__builtin_cpu_supports("pclmul"))
        best = fold;
#endif
    return PyModuleDef_Init(&definition);
}
