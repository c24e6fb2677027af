/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The descriptor is watched edge-triggered. A virtio-serial port reads end of file and polls as
 * hung up for as long as the host is away; level-triggered, that would be a busy loop, and its
 * driver wakes the waiters when the host comes back. The price is that reading must go on until
 * there is nothing more, so `readable` remembers what a full queue made us leave.
 */
#include "link.h"

#include <errno.h>
#include <sys/uio.h>
#include <unistd.h>

#include "loop.h"
#include "ring.h"

enum {
    QUEUE = 256 * 1024,
    FOR_CONTROL = 96 * 1024, /* of it, what DATA never takes */
    FOR_REPLY = 16 * 1024,   /* what must be free before another frame is read */
    AWAY_MS = 1000,          /* how often to look after the host, should a wake-up be lost */
};

static struct watch port = {.fd = -1};
static struct timer look_again;
static struct ring queue;
static struct decoder decoder;
static struct link_events on;
static bool readable, stuck;
/*
 * The host was not there when we last looked. A clone wakes up with its first bytes before the word
 * that it is back: what we answer meanwhile must outlast another look that still finds it away.
 */
static bool away;

static void port_ready(struct watch *watch, uint32_t events)
{
    (void)watch, (void)events;
    readable = true;
    stuck = false;
}

static void look(struct timer *timer)
{
    (void)timer;
    readable = true;
}

void link_init(const struct link_events *events)
{
    on = *events;
    ring_init(&queue, QUEUE);
    decoder_reset(&decoder);
}

void link_attach(int fd)
{
    watch_close(&port);
    timer_stop(&look_again);
    decoder_reset(&decoder);
    ring_clear(&queue);
    watch_init(&port, fd, port_ready);
    watch_want(&port, EPOLLIN | EPOLLOUT | EPOLLET);
    readable = true;
    stuck = away = false;
}

bool link_has_room(void)
{
    return ring_room(&queue) >= FOR_CONTROL + FRAME_HEAD + FRAME_DATA;
}

void link_forget(void)
{
    ring_clear(&queue);
}

void link_send(enum frame_type type, uint8_t flags, uint32_t channel, const void *payload,
               size_t length)
{
    struct frame frame = {
        .type = (uint8_t)type,
        .flags = flags,
        .channel = channel,
        .length = (uint32_t)length,
        .payload = payload,
    };
    uint8_t head[FRAME_HEAD];

    frame_head(head, &frame);
    if (ring_room(&queue) < sizeof(head) + length)
        return; /* Cannot happen while the host reads; if it does, its time-outs see to it. */
    ring_push(&queue, head, sizeof(head));
    ring_push(&queue, payload, length);
}

void link_send_fields(enum frame_type type, uint32_t channel, const struct writer *writer)
{
    link_send(type, 0, channel, writer->bytes, writer->size);
}

static void lose(void)
{
    watch_close(&port);
    link_forget();
    on.broken();
}

static void host_is_away(void)
{
    timer_set(&look_again, AWAY_MS, look);
    if (away)
        return;
    away = true;
    decoder_reset(&decoder);
    link_forget();
    on.away();
}

static void flush(void)
{
    bool was_full = !link_has_room();

    while (port.fd >= 0 && !stuck && queue.used > 0) {
        const uint8_t *bytes;
        size_t count = ring_peek(&queue, &bytes);
        ssize_t sent = write(port.fd, bytes, count);
        if (sent > 0) {
            away = false;
            ring_drop(&queue, (size_t)sent);
        } else if (sent < 0 && errno == EAGAIN)
            stuck = true;
        else if (sent < 0 && errno == EPIPE)
            return; /* Reading says what happened. */
        else if (sent < 0 && errno != EINTR)
            lose();
    }
    if (was_full && link_has_room())
        on.room();
}

static void take_frames(void)
{
    struct frame frame;

    while (ring_room(&queue) >= FOR_REPLY && decoder_next(&decoder, &frame))
        on.frame(&frame);
}

static void take_bytes(void)
{
    size_t room;
    uint8_t *space = decoder_space(&decoder, &room);
    ssize_t count = room == 0 ? -1 : read(port.fd, space, room);

    if (room == 0)
        return;
    if (count > 0) {
        timer_stop(&look_again);
        decoder_added(&decoder, (size_t)count);
    } else if (count == 0) {
        readable = false;
        host_is_away();
    } else if (errno == EAGAIN) {
        readable = away = false;
    } else if (errno != EINTR) {
        readable = false;
        lose();
    }
}

bool link_work(void)
{
    if (port.fd >= 0)
        flush();
    if (port.fd >= 0 && ring_room(&queue) >= FOR_REPLY) {
        take_frames();
        if (readable)
            take_bytes();
        if (port.fd >= 0)
            take_frames();
    }
    if (port.fd >= 0)
        flush();
    return port.fd >= 0 && readable && ring_room(&queue) >= FOR_REPLY;
}
