/* SPDX-License-Identifier: Apache-2.0 */
/* The one loop: descriptors, timers, and what is done before it sleeps. No threads anywhere. */
#ifndef LOOP_H
#define LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>

#define container_of(member_pointer, type, member) \
    ((type *)((char *)(member_pointer) - offsetof(type, member)))

struct watch {
    int fd; /* -1: nothing open */
    uint32_t wanted;
    void (*ready)(struct watch *watch, uint32_t events);
};

struct timer {
    int64_t at; /* CLOCK_BOOTTIME, ms; 0: not set */
    void (*fire)(struct timer *timer);
    struct timer *next;
};

bool loop_init(void);
/* Runs for ever. `before_sleep` says whether it left something to do at once. */
_Noreturn void loop_run(bool (*before_sleep)(void));

void watch_init(struct watch *watch, int fd, void (*ready)(struct watch *, uint32_t));
/* Which events to wait for; 0 takes it off the loop (a hung-up descriptor would never rest). */
void watch_want(struct watch *watch, uint32_t events);
void watch_close(struct watch *watch);

void timer_set(struct timer *timer, int64_t in_ms, void (*fire)(struct timer *));
void timer_stop(struct timer *timer);

int64_t now_ms(void);
int64_t now_ns(void);

#endif
