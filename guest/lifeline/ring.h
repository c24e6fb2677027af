/* SPDX-License-Identifier: Apache-2.0 */
/* A ring of bytes of a fixed size. Its memory is taken at first use. */
#ifndef RING_H
#define RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ring {
    uint8_t *bytes;
    size_t size, start, used;
};

void ring_init(struct ring *ring, size_t size);
void ring_free(struct ring *ring);
void ring_clear(struct ring *ring);
size_t ring_room(const struct ring *ring);
/* All or nothing; false when it does not fit or there is no memory. */
bool ring_push(struct ring *ring, const void *bytes, size_t count);
/* Keeps the newest bytes, overwriting the oldest. */
void ring_push_over(struct ring *ring, const void *bytes, size_t count);
/* The oldest bytes that lie in one piece. */
size_t ring_peek(const struct ring *ring, const uint8_t **bytes);
void ring_drop(struct ring *ring, size_t count);

#endif
