/* SPDX-License-Identifier: Apache-2.0 */
/* Fields: the payload of control frames (PROTOCOL.md, "Fields"). */
#ifndef FIELDS_H
#define FIELDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum tag {
    TAG_KIND = 1,
    TAG_ARG,
    TAG_ENV,
    TAG_USER,
    TAG_CWD,
    TAG_ROWS,
    TAG_COLS,
    TAG_TERM,
    TAG_TERMINAL,
    TAG_PATH,
    TAG_SCRIPT,
    TAG_NAME,
    TAG_FLAG,
    TAG_SIZE,
    TAG_PID,
    TAG_MODE,
    TAG_ERRNO,
    TAG_STEP,
    TAG_MESSAGE,
    TAG_CODE,
    TAG_SIGNO,
    TAG_TIME,
    TAG_NONCE,
    TAG_VERSION,
    TAG_BOOT_ID,
    TAG_STARTED,
    TAG_SECRET,
    TAG_PORT,
    TAG_ID,
    TAG_DATA,
};

/* Somebody else's bytes, read in place. */
struct fields {
    const uint8_t *bytes;
    size_t size;
};

struct field {
    uint8_t tag;
    uint32_t length;
    const uint8_t *value;
};

/* Whether the whole payload is a list of fields; the rest here may only be used if so. */
bool fields_are_whole(const struct fields *fields);
/* Steps through all fields; `*at` starts at 0. */
bool fields_next(const struct fields *fields, size_t *at, struct field *field);
bool fields_first(const struct fields *fields, enum tag tag, struct field *field);
int64_t fields_number(const struct fields *fields, enum tag tag, int64_t otherwise);
/* Copies a text; false when it is absent, holds a NUL or does not fit. */
bool fields_text(const struct fields *fields, enum tag tag, char *text, size_t size);
bool fields_flag(const struct fields *fields, const char *flag);
/* A fresh, NULL-terminated array of the texts with this tag; NULL when memory ends. */
char **fields_texts(const struct fields *fields, enum tag tag);

/* Fields of our own, gathered for one frame. What does not fit is left out, never half of it. */
struct writer {
    size_t size;
    uint8_t bytes[4096];
};

void write_bytes(struct writer *writer, enum tag tag, const void *value, size_t length);
void write_text(struct writer *writer, enum tag tag, const char *value);
void write_number(struct writer *writer, enum tag tag, int64_t value);

#endif
