/* SPDX-License-Identifier: Apache-2.0 */
#include "discard.h"

#include <errno.h>
#include <unistd.h>

enum { MOST = 64 };

static struct watch kept[MOST];
static int used; /* slots ever used; later ones hold no descriptor yet */

static void throw_away(struct watch *watch, uint32_t events)
{
    char bytes[16384];
    ssize_t count = read(watch->fd, bytes, sizeof(bytes));

    (void)events;
    if (count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR))
        watch_close(watch);
}

static struct watch *free_slot(void)
{
    for (int slot = 0; slot < used; slot++)
        if (kept[slot].fd < 0)
            return &kept[slot];
    return used < MOST ? &kept[used++] : NULL;
}

void discard(struct watch *watch)
{
    struct watch *slot = watch->fd < 0 ? NULL : free_slot();

    if (slot == NULL) {
        watch_close(watch);
        return;
    }
    watch_want(watch, 0);
    watch_init(slot, watch->fd, throw_away);
    watch_want(slot, EPOLLIN);
    watch->fd = -1;
}
