/* The documents of a server's reply, taken out of the array around them. cursor.py is the definition: what
 * this does not like it answers with None, and the Python finds the words.
 *
 * Twice over the array without the interpreter's lock: once to check and to measure, once to copy.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "elsewhere cursor.py does the work");

enum { DOCUMENT = 0x03, DOCUMENT_MIN = 5, DIGITS_MAX = 8 };

struct found {
    int64_t number;
    int64_t size;
    int64_t last; /* bytes of the last document */
};

static int64_t length_at(const unsigned char *at)
{
    int32_t length;
    memcpy(&length, at, sizeof length);
    return length;
}

/* Walk over the elements of the array; copy the documents to `out`, which has `room` bytes, unless it is NULL.
 * False if it is no array of documents, or not the one any more that was measured. */
static int walk(const unsigned char *data, int64_t size, unsigned char *out, int64_t room, struct found *found)
{
    if (size < DOCUMENT_MIN || length_at(data) != size || data[size - 1])
        return 0;
    const int64_t end = size - 1;
    int64_t at = 4, number = 0, total = 0, length = 0, following = 10;
    int digits = 1;
    while (at < end) {
        if (number == following) {
            following *= 10;
            if (++digits == DIGITS_MAX)
                return 0;
        }
        const int64_t start = at + 2 + digits; /* type, position in decimal, NUL */
        if (data[at] != DOCUMENT || start + DOCUMENT_MIN > end || data[start - 1])
            return 0;
        length = length_at(data + start);
        if (length < DOCUMENT_MIN || length > end - start || data[start + length - 1])
            return 0;
        if (out && length > room - total)
            return 0;
        if (out)
            memcpy(out + total, data + start, (size_t)length);
        total += length;
        at = start + length;
        number++;
    }
    found->number = number;
    found->size = total;
    found->last = length;
    return at == end;
}

static PyObject *unpack(PyObject *self, PyObject *args)
{
    Py_buffer view;
    struct found found = {0, 0, 0};
    PyObject *joined = NULL, *result = NULL;
    int fits;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*:unpack", &view))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    fits = walk(view.buf, view.len, NULL, 0, &found);
    Py_END_ALLOW_THREADS
    if (!fits) {
        PyBuffer_Release(&view);
        Py_RETURN_NONE;
    }
    const int64_t room = found.size;
    joined = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)room);
    if (joined) {
        unsigned char *out = (unsigned char *)PyBytes_AsString(joined);
        Py_BEGIN_ALLOW_THREADS
        fits = walk(view.buf, view.len, out, room, &found) && found.size == room;
        Py_END_ALLOW_THREADS
        if (fits)
            result = Py_BuildValue("OLL", joined, (long long)found.number, (long long)(room - found.last));
        else
            result = Py_NewRef(Py_None);
        Py_DECREF(joined);
    }
    PyBuffer_Release(&view);
    return result;
}

static PyMethodDef methods[] = {
    {"unpack", unpack, METH_VARARGS, "Return documents, their number, where the last begins; or None."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_batch", NULL, -1, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__batch(void)
{
    return PyModule_Create(&module);
}
