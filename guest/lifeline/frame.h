/* SPDX-License-Identifier: Apache-2.0 */
/* Frames: the unit of the lifeline protocol (PROTOCOL.md, "Frames"). Bytes in, values out. */
#ifndef FRAME_H
#define FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    FRAME_HEAD = 16,
    FRAME_PAYLOAD = 65536, /* longest payload */
    FRAME_DATA = 16384,    /* longest payload of a DATA frame */
    FRAME_MAGIC = 0xB09B,
    SYNC_PAYLOAD = 32,
};

enum frame_type {
    PADDING = 0,
    SYNC = 1,
    HELLO = 2,
    OPEN = 3,
    OPENED = 4,
    FAILED = 5,
    DATA = 6,
    END = 7, /* EOF on the protocol page; the name is taken in C */
    WINDOW = 8,
    SIGNAL = 9,
    RESIZE = 10,
    EXIT = 11,
    CLOSE = 12,
    MILESTONE = 13,
    CALL = 14,
    RESULT = 15,
    ASK = 16,
    ANSWER = 17,
};

struct frame {
    uint8_t type, flags;
    uint32_t channel, length;
    const uint8_t *payload; /* valid until the decoder is touched again */
};

/* A reader. It starts hunting: nothing before the first SYNC means anything. */
struct decoder {
    size_t start, end;
    bool in_step;
    uint8_t bytes[2 * (FRAME_HEAD + FRAME_PAYLOAD)];
};

void decoder_reset(struct decoder *decoder);
/* Where to put received bytes, at least a frame's worth of room; then say how many came. */
uint8_t *decoder_space(struct decoder *decoder, size_t *room);
void decoder_added(struct decoder *decoder, size_t count);
/* The next whole, right frame, or false when more bytes are needed. */
bool decoder_next(struct decoder *decoder, struct frame *frame);

void frame_head(uint8_t head[FRAME_HEAD], const struct frame *frame);

uint32_t get32(const uint8_t *from);
void put32(uint8_t *to, uint32_t value);

#endif
