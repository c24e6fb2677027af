/* SPDX-License-Identifier: Apache-2.0 */
#include "loop.h"

#include <errno.h>
#include <time.h>
#include <unistd.h>

static int epoll = -1;
static struct timer *timers;

int64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_BOOTTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t now_ms(void)
{
    return now_ns() / 1000000;
}

bool loop_init(void)
{
    epoll = epoll_create1(EPOLL_CLOEXEC);
    return epoll >= 0;
}

void watch_init(struct watch *watch, int fd, void (*ready)(struct watch *, uint32_t))
{
    *watch = (struct watch){.fd = fd, .ready = ready};
}

void watch_want(struct watch *watch, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = watch};

    if (watch->fd < 0 || watch->wanted == events)
        return;
    int change = watch->wanted == 0 ? EPOLL_CTL_ADD : events == 0 ? EPOLL_CTL_DEL : EPOLL_CTL_MOD;
    if (epoll_ctl(epoll, change, watch->fd, &event) == 0)
        watch->wanted = events;
}

void watch_close(struct watch *watch)
{
    if (watch->fd < 0)
        return;
    /* Closing alone would not do: a child between fork and exec still holds the same file. */
    watch_want(watch, 0);
    close(watch->fd);
    watch->fd = -1;
}

void timer_set(struct timer *timer, int64_t in_ms, void (*fire)(struct timer *))
{
    struct timer **place = &timers;

    timer_stop(timer);
    timer->at = now_ms() + in_ms;
    timer->fire = fire;
    while (*place != NULL && (*place)->at <= timer->at)
        place = &(*place)->next;
    timer->next = *place;
    *place = timer;
}

void timer_stop(struct timer *timer)
{
    for (struct timer **place = &timers; *place != NULL; place = &(*place)->next)
        if (*place == timer) {
            *place = timer->next;
            break;
        }
    timer->at = 0;
}

static void fire_due(void)
{
    int64_t now = now_ms();

    while (timers != NULL && timers->at <= now) {
        struct timer *due = timers;
        timer_stop(due);
        due->fire(due);
    }
}

static int sleep_ms(bool busy)
{
    if (busy)
        return 0;
    if (timers == NULL)
        return -1;
    int64_t left = timers->at - now_ms();
    return left < 0 ? 0 : left > 60000 ? 60000 : (int)left;
}

void loop_run(bool (*before_sleep)(void))
{
    for (;;) {
        struct epoll_event event;
        bool busy = before_sleep();
        /* One event a turn: handling it may free the watch that a second one would name. */
        int count = epoll_wait(epoll, &event, 1, sleep_ms(busy));
        if (count == 1) {
            struct watch *watch = event.data.ptr;
            watch->ready(watch, event.events);
        }
        fire_due();
    }
}
