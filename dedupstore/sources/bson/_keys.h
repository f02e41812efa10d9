/* Sort keys of the usual types of `_id`, byte for byte as order.py makes them. For any other it gives up.
 *
 * Writes at most `key_room` bytes. No state, no memory.
 */
#ifndef DEDUPSTORE_KEYS_H
#define DEDUPSTORE_KEYS_H

#include "_bson.h"

#define LONG_KEY 1024   /* bytes of text; longer ones are for the Python */

static inline uint8_t *put_big(uint8_t *to, uint64_t number, int bytes)
{
    for (int n = bytes - 1; n >= 0; n--)
        *to++ = (uint8_t)(number >> 8 * n);
    return to;
}

/* The body of a whole number, as _integer() in order.py. */
static inline uint8_t *put_integer(uint8_t *to, int64_t number)
{
    *to = number > 0 ? 0x50 : number < 0 ? 0x30 : 0x40;
    if (!number)
        return to + 1;
    uint64_t magnitude = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    to = put_big(to + 1, number < 0 ? ~magnitude : magnitude, 8);
    *to = number < 0 ? 0xFF : 0x00;
    return to + 1;
}

static inline uint8_t *put_text(uint8_t *to, const uint8_t *text, size_t size)
{
    if (!memchr(text, 0, size)) {
        memcpy(to, text, size);
        to += size;
    } else {
        for (size_t n = 0; n < size; n++) {
            *to++ = text[n];
            if (!text[n])
                *to++ = 0xFF;
        }
    }
    *to = 0;
    return to + 1;
}

#define KEY_ROOM_MAX (32 + 2 * LONG_KEY)

/* An upper bound of the key's bytes; 0 if the Python has to make it. */
static inline size_t key_room(Value id)
{
    switch (id.type) {
    case STRING: case SYMBOL: case BINARY:
        return load32(id.at) <= LONG_KEY ? 32 + 2 * (size_t)load32(id.at) : 0;
    case OBJECT_ID: case INT32: case INT64: case DOUBLE: case DATE: case TIMESTAMP:
        return 32;
    default:
        return 0;
    }
}

/* Writes the key of a value that was walked over; returns its end, or NULL if the Python has to make it. */
static inline uint8_t *put_key(uint8_t *to, Value id)
{
    double number;
    size_t size;
    if (!key_room(id))
        return NULL;
    switch (id.type) {
    case OBJECT_ID:
        *to = 0x68;
        memcpy(to + 1, id.at, 12);
        return to + 13;
    case STRING: case SYMBOL:
        *to = 0x40;
        return put_text(to + 1, id.at + 4, load32(id.at) - 1);
    case BINARY:
        size = load32(id.at);
        *to = 0x60;
        to = put_big(to + 1, size, 4);
        memcpy(to, id.at + 4, size + 1);
        return to + size + 1;
    case INT32:
        *to = 0x30;
        return put_integer(to + 1, (int32_t)load32(id.at));
    case INT64:
        *to = 0x30;
        return put_integer(to + 1, (int64_t)load64(id.at));
    case DOUBLE:
        number = load_double(id.at);
        if (!(number > -(double)EXACT && number < (double)EXACT && (double)(int64_t)number == number))
            return NULL;
        *to = 0x30;
        return put_integer(to + 1, (int64_t)number);
    default: /* DATE, TIMESTAMP */
        *to = id.type == DATE ? 0x78 : 0x80;
        return put_big(to + 1, load64(id.at) ^ (id.type == DATE ? (uint64_t)1 << 63 : 0), 8);
    }
}

#endif
