/* SPDX-License-Identifier: Apache-2.0 */
#include "ring.h"

#include <stdlib.h>
#include <string.h>

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

void ring_init(struct ring *ring, size_t size)
{
    *ring = (struct ring){.size = size};
}

void ring_free(struct ring *ring)
{
    free(ring->bytes);
    ring_init(ring, ring->size);
}

void ring_clear(struct ring *ring)
{
    ring->start = ring->used = 0;
}

size_t ring_room(const struct ring *ring)
{
    return ring->size - ring->used;
}

bool ring_push(struct ring *ring, const void *bytes, size_t count)
{
    if (count == 0)
        return true;
    if (ring->bytes == NULL)
        ring->bytes = malloc(ring->size);
    if (ring->bytes == NULL || count > ring_room(ring))
        return false;
    size_t end = (ring->start + ring->used) % ring->size;
    size_t first = least(count, ring->size - end);
    memcpy(ring->bytes + end, bytes, first);
    memcpy(ring->bytes, (const uint8_t *)bytes + first, count - first);
    ring->used += count;
    return true;
}

void ring_push_over(struct ring *ring, const void *bytes, size_t count)
{
    const uint8_t *newest = bytes;

    if (count > ring->size) {
        newest += count - ring->size;
        count = ring->size;
    }
    if (count > ring_room(ring))
        ring_drop(ring, count - ring_room(ring));
    ring_push(ring, newest, count);
}

size_t ring_peek(const struct ring *ring, const uint8_t **bytes)
{
    *bytes = ring->bytes + ring->start;
    return least(ring->used, ring->size - ring->start);
}

void ring_drop(struct ring *ring, size_t count)
{
    ring->used -= count;
    /* An empty one begins at its beginning: the pages there are in memory already. */
    ring->start = ring->used == 0 ? 0 : (ring->start + count) % ring->size;
}
