/* SPDX-License-Identifier: Apache-2.0 */
#include "frame.h"

#include <string.h>

#include "crc32.h"

static const char sync_constant[16] = "bugbox lifeline1";

uint32_t get32(const uint8_t *from)
{
    return (uint32_t)from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 |
           (uint32_t)from[3] << 24;
}

void put32(uint8_t *to, uint32_t value)
{
    for (int byte = 0; byte < 4; byte++)
        to[byte] = (uint8_t)(value >> 8 * byte);
}

static uint32_t crc_of(const uint8_t *head, const uint8_t *payload, size_t length)
{
    return crc32_add(crc32_add(0, head, 12), payload, length);
}

void frame_head(uint8_t head[FRAME_HEAD], const struct frame *frame)
{
    head[0] = frame->type;
    head[1] = frame->flags;
    head[2] = FRAME_MAGIC & 0xff;
    head[3] = FRAME_MAGIC >> 8;
    put32(head + 4, frame->channel);
    put32(head + 8, frame->length);
    put32(head + 12, crc_of(head, frame->payload, frame->length));
}

void decoder_reset(struct decoder *decoder)
{
    decoder->start = decoder->end = 0;
    decoder->in_step = false;
}

uint8_t *decoder_space(struct decoder *decoder, size_t *room)
{
    if (decoder->start > 0) {
        memmove(decoder->bytes, decoder->bytes + decoder->start, decoder->end - decoder->start);
        decoder->end -= decoder->start;
        decoder->start = 0;
    }
    *room = sizeof(decoder->bytes) - decoder->end;
    return decoder->bytes + decoder->end;
}

void decoder_added(struct decoder *decoder, size_t count)
{
    decoder->end += count;
}

static bool head_is_right(const uint8_t *head)
{
    return (head[2] | head[3] << 8) == FRAME_MAGIC && get32(head + 8) <= FRAME_PAYLOAD;
}

static bool is_sync(const uint8_t *bytes)
{
    return bytes[0] == SYNC && head_is_right(bytes) && get32(bytes + 8) == SYNC_PAYLOAD &&
           memcmp(bytes + FRAME_HEAD, sync_constant, sizeof(sync_constant)) == 0 &&
           get32(bytes + 12) == crc_of(bytes, bytes + FRAME_HEAD, SYNC_PAYLOAD);
}

/* Throws bytes away until a whole SYNC frame lies at the start. */
static bool hunt(struct decoder *decoder)
{
    while (decoder->end - decoder->start >= FRAME_HEAD + SYNC_PAYLOAD) {
        const uint8_t *from = decoder->bytes + decoder->start;
        size_t candidates = decoder->end - decoder->start - (FRAME_HEAD + SYNC_PAYLOAD) + 1;
        const uint8_t *found = memchr(from, SYNC, candidates);
        if (found == NULL) {
            decoder->start += candidates;
            return false;
        }
        decoder->start += (size_t)(found - from);
        if (is_sync(found))
            return true;
        decoder->start++;
    }
    return false;
}

static void skip_padding(struct decoder *decoder)
{
    while (decoder->start < decoder->end && decoder->bytes[decoder->start] == PADDING)
        decoder->start++;
}

static void fill_frame(struct frame *frame, const uint8_t *head)
{
    frame->type = head[0];
    frame->flags = head[1];
    frame->channel = get32(head + 4);
    frame->length = get32(head + 8);
    frame->payload = head + FRAME_HEAD;
}

bool decoder_next(struct decoder *decoder, struct frame *frame)
{
    for (;;) {
        if (!decoder->in_step && !hunt(decoder))
            return false;
        decoder->in_step = true;
        skip_padding(decoder);

        size_t held = decoder->end - decoder->start;
        const uint8_t *head = decoder->bytes + decoder->start;
        if (held < FRAME_HEAD)
            return false;
        if (!head_is_right(head)) {
            decoder->start++;
            decoder->in_step = false;
            continue;
        }
        fill_frame(frame, head);
        if (held < FRAME_HEAD + (size_t)frame->length)
            return false;
        decoder->start += FRAME_HEAD + (size_t)frame->length;
        if (get32(head + 12) == crc_of(head, frame->payload, frame->length) &&
            (frame->type != SYNC || is_sync(head)))
            return true;
        decoder->in_step = false;
    }
}
