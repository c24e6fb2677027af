/* SPDX-License-Identifier: Apache-2.0 */
#include "fields.h"

#include <stdlib.h>
#include <string.h>

#include "frame.h"

enum { FIELD_HEAD = 5, NUMBER = 8 };

bool fields_are_whole(const struct fields *fields)
{
    size_t at = 0;

    while (fields->size - at >= FIELD_HEAD) {
        uint32_t length = get32(fields->bytes + at + 1);
        if (length > fields->size - at - FIELD_HEAD)
            return false;
        at += FIELD_HEAD + (size_t)length;
    }
    return at == fields->size;
}

bool fields_next(const struct fields *fields, size_t *at, struct field *field)
{
    if (*at >= fields->size)
        return false;
    field->tag = fields->bytes[*at];
    field->length = get32(fields->bytes + *at + 1);
    field->value = fields->bytes + *at + FIELD_HEAD;
    *at += FIELD_HEAD + (size_t)field->length;
    return true;
}

bool fields_first(const struct fields *fields, enum tag tag, struct field *field)
{
    size_t at = 0;

    while (fields_next(fields, &at, field))
        if (field->tag == tag)
            return true;
    return false;
}

int64_t fields_number(const struct fields *fields, enum tag tag, int64_t otherwise)
{
    struct field field;

    if (!fields_first(fields, tag, &field) || field.length != NUMBER)
        return otherwise;
    return (int64_t)((uint64_t)get32(field.value) | (uint64_t)get32(field.value + 4) << 32);
}

static bool is_text(const struct field *field)
{
    return memchr(field->value, 0, field->length) == NULL;
}

bool fields_text(const struct fields *fields, enum tag tag, char *text, size_t size)
{
    struct field field;

    if (!fields_first(fields, tag, &field) || field.length >= size || !is_text(&field))
        return false;
    memcpy(text, field.value, field.length);
    text[field.length] = '\0';
    return true;
}

bool fields_flag(const struct fields *fields, const char *flag)
{
    struct field field;
    size_t at = 0;

    while (fields_next(fields, &at, &field))
        if (field.tag == TAG_FLAG && field.length == strlen(flag) &&
            memcmp(field.value, flag, field.length) == 0)
            return true;
    return false;
}

char **fields_texts(const struct fields *fields, enum tag tag)
{
    struct field field;
    size_t count = 0;

    for (size_t at = 0; fields_next(fields, &at, &field);)
        count += field.tag == tag;
    char **texts = calloc(count + 1, sizeof(*texts));
    if (texts == NULL)
        return NULL;
    count = 0;
    for (size_t at = 0; fields_next(fields, &at, &field);) {
        if (field.tag != tag || !is_text(&field))
            continue;
        texts[count] = strndup((const char *)field.value, field.length);
        if (texts[count++] == NULL)
            return NULL;
    }
    return texts;
}

void write_bytes(struct writer *writer, enum tag tag, const void *value, size_t length)
{
    if (length > sizeof(writer->bytes) - writer->size ||
        FIELD_HEAD > sizeof(writer->bytes) - writer->size - length)
        return;
    uint8_t *to = writer->bytes + writer->size;
    to[0] = (uint8_t)tag;
    put32(to + 1, (uint32_t)length);
    memcpy(to + FIELD_HEAD, value, length);
    writer->size += FIELD_HEAD + length;
}

void write_text(struct writer *writer, enum tag tag, const char *value)
{
    write_bytes(writer, tag, value, strlen(value));
}

void write_number(struct writer *writer, enum tag tag, int64_t value)
{
    uint8_t bytes[NUMBER];

    put32(bytes, (uint32_t)value);
    put32(bytes + 4, (uint32_t)((uint64_t)value >> 32));
    write_bytes(writer, tag, bytes, sizeof(bytes));
}
