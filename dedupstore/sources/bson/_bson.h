/* BSON as it lies in memory, walked: what raw.py does, for the kernels of this package, each of which includes it.
 *
 * Reads nothing outside [at, limit). What does not add up gives NULL or 0, and the Python finds the words; so does
 * an `_id` nested deeper than NESTING. No state, no memory.
 */
#ifndef DEDUPSTORE_BSON_H
#define DEDUPSTORE_BSON_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define DOCUMENT_MIN 5
#define DOCUMENT_MAX ((16 << 20) + (16 << 10))
#define NESTING 32
#define EXACT ((int64_t)1 << 53)    /* integers up to this are doubles too */

enum { DOUBLE = 0x01, STRING, OBJECT, ARRAY, BINARY, UNDEFINED, OBJECT_ID, BOOLEAN, DATE, NIL, REGEX, DB_POINTER,
       CODE, SYMBOL, CODE_W_SCOPE, INT32, TIMESTAMP, INT64, DECIMAL128, MAX_KEY = 0x7F, MIN_KEY = 0xFF };

/* A value: its type and where its bytes lie; no type, no value. */
typedef struct {
    uint8_t type;
    const uint8_t *at, *end;
} Value;

static inline uint32_t load32(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static inline uint64_t load64(const uint8_t *at)
{
    return load32(at) | (uint64_t)load32(at + 4) << 32;
}

static inline double load_double(const uint8_t *at)
{
    uint64_t bits = load64(at);
    double number;
    memcpy(&number, &bits, sizeof number);
    return number;
}

/* The end of a document that lies within [at, limit), or NULL. */
static inline const uint8_t *document_end(const uint8_t *at, const uint8_t *limit)
{
    if (limit - at < DOCUMENT_MIN)
        return NULL;
    int32_t length = (int32_t)load32(at);
    if (length < DOCUMENT_MIN || length > limit - at || at[length - 1])
        return NULL;
    return at + length;
}

static inline const uint8_t *text_end(const uint8_t *at, const uint8_t *limit)
{
    const uint8_t *stop = at < limit ? memchr(at, 0, (size_t)(limit - at)) : NULL;
    return stop ? stop + 1 : NULL;
}

static inline const uint8_t *string_end(const uint8_t *at, const uint8_t *limit)
{
    if (limit - at < 5)
        return NULL;
    int32_t length = (int32_t)load32(at);
    if (length < 1 || length > limit - at - 4 || at[3 + length])
        return NULL;
    return at + 4 + length;
}

static inline const uint8_t *fixed_end(const uint8_t *at, const uint8_t *limit, ptrdiff_t size)
{
    return size <= limit - at ? at + size : NULL;
}

/* The end of a value, or NULL if it does not end by `limit` or makes no sense. */
static inline const uint8_t *value_end(uint8_t type, const uint8_t *at, const uint8_t *limit)
{
    const uint8_t *end;
    switch (type) {
    case UNDEFINED: case NIL: case MIN_KEY: case MAX_KEY:
        return at;
    case BOOLEAN:
        return fixed_end(at, limit, 1);
    case INT32:
        return fixed_end(at, limit, 4);
    case DOUBLE: case DATE: case TIMESTAMP: case INT64:
        return fixed_end(at, limit, 8);
    case OBJECT_ID:
        return fixed_end(at, limit, 12);
    case DECIMAL128:
        return fixed_end(at, limit, 16);
    case STRING: case CODE: case SYMBOL:
        return string_end(at, limit);
    case OBJECT: case ARRAY:
        return document_end(at, limit);
    case BINARY:
        if (limit - at < 5 || (int32_t)load32(at) < 0)
            return NULL;
        return fixed_end(at, limit, (ptrdiff_t)load32(at) + 5);
    case REGEX:
        end = text_end(at, limit);
        return end ? text_end(end, limit) : NULL;
    case DB_POINTER:
        end = string_end(at, limit);
        return end ? fixed_end(end, limit, 12) : NULL;
    case CODE_W_SCOPE:
        if (limit - at < 4 || (int32_t)load32(at) < 4 || (int32_t)load32(at) > limit - at)
            return NULL;
        limit = at + load32(at);
        end = string_end(at + 4, limit);
        end = end ? document_end(end, limit) : NULL;
        return end == limit ? end : NULL;
    default:
        return NULL;
    }
}

/* Take the field at *at, which ends before `limit`, and move on; 0 if it makes no sense. */
static inline int next_field(const uint8_t **at, const uint8_t *limit, const uint8_t **name, Value *value)
{
    value->type = **at;
    *name = *at + 1;
    value->at = text_end(*name, limit);
    value->end = value->at ? value_end(value->type, value->at, limit) : NULL;
    *at = value->end;
    return value->end != NULL;
}

/* Where a CODE_W_SCOPE's scope begins; its frame has been checked. */
static inline const uint8_t *scope_of(Value code)
{
    return code.at + 8 + load32(code.at + 4);
}

/* Whether all that is nested in a value whose frame is good is good too, and not too deep. */
static inline int sound(Value value, int depth)
{
    const uint8_t *at = value.at, *name;
    Value inner;
    if (value.type == CODE_W_SCOPE)
        at = scope_of(value);
    else if (value.type != OBJECT && value.type != ARRAY)
        return 1;
    if (depth == NESTING)
        return 0;
    for (at += 4; at < value.end - 1;)
        if (!next_field(&at, value.end - 1, &name, &inner) || !sound(inner, depth + 1))
            return 0;
    return 1;
}

/* Find `_id` in a document whose frame is good; without one the value has no type. 0 for damage. */
static inline int find_id(const uint8_t *document, const uint8_t *end, Value *id)
{
    const uint8_t *name;
    for (const uint8_t *at = document + 4; at < end - 1;) {
        if (!next_field(&at, end - 1, &name, id))
            return 0;
        if (id->at - name == 4 && !memcmp(name, "_id", 3))
            return sound(*id, 0);
    }
    id->type = 0;
    return 1;
}

#endif
