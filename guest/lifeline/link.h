/* SPDX-License-Identifier: Apache-2.0 */
/* The link: frames to and from the host over one descriptor, with bounded buffers both ways. */
#ifndef LINK_H
#define LINK_H

#include <stdbool.h>

#include "fields.h"
#include "frame.h"

struct link_events {
    void (*frame)(const struct frame *frame);
    void (*away)(void);    /* the host's end is closed: nothing queued will ever be read */
    void (*room)(void);    /* there is room for DATA again */
    void (*broken)(void);  /* the descriptor itself is gone */
};

void link_init(const struct link_events *events);
/* Takes over a connected, non-blocking descriptor. */
void link_attach(int fd);
/* True when there is still something to read; to be called before every sleep. */
bool link_work(void);

/* Whether a DATA frame may be queued now. Control frames have room of their own. */
bool link_has_room(void);
void link_send(enum frame_type type, uint8_t flags, uint32_t channel, const void *payload,
               size_t length);
void link_send_fields(enum frame_type type, uint32_t channel, const struct writer *writer);
/* Forgets all that is queued. */
void link_forget(void);

#endif
