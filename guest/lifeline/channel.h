/* SPDX-License-Identifier: Apache-2.0 */
/* Channels: what the host opened, each with its credit, its streams and its end. */
#ifndef CHANNEL_H
#define CHANNEL_H

#include <stdbool.h>
#include <stdint.h>

#include "fields.h"
#include "loop.h"
#include "process.h"
#include "ring.h"

enum { CHANNELS = 64, CREDIT = 65536, GRANT_STEP = 16384 };

struct terminal;

/* From the host to a descriptor of ours. */
struct input {
    struct watch watch;
    struct ring ring;
    bool ending; /* close it when the ring is empty */
    bool is_terminal;
};

/* From a descriptor of ours to the host. */
struct output {
    struct watch watch;
    struct channel *channel;
    struct ring *before; /* what goes first: a terminal's kept output */
    int64_t last;        /* how much more may come after the command's end; -1: no end yet */
};

struct channel {
    uint32_t id; /* 0: a free slot */
    bool opened; /* OPENED was sent */
    bool closing; /* the host gave it up */
    bool keep_running; /* its command is not killed when the channel is */
    bool ends_itself; /* cleans up when its stdin ends: never killed outright */
    uint32_t credit;  /* bytes the host takes yet */
    uint32_t allowed; /* bytes the host may send yet */
    uint32_t passed;  /* bytes passed on, and not granted again yet */
    struct input in;
    struct output out[2];
    struct watch side; /* the report of a child, or a connection in progress */
    struct process process;
    pid_t group; /* the process group, which may outlive its leader */
    bool ended;
    int status;
    struct timer patience;
    struct terminal *terminal;
};

/* A channel in its first state, or NULL when all are taken. */
struct channel *channel_new(uint32_t id);
struct channel *channel_find(uint32_t id);
/* Forgets a channel without a word: descriptors, timer, process. */
void channel_free(struct channel *channel);

/* The last word of a channel that could not be. */
void channel_fail(struct channel *channel, int error, const char *step, const char *message);

/* Hands over descriptors (-1: that stream does not exist). */
void channel_streams(struct channel *channel, int in, int out, int err);
/* The word that it is open; `extra` may be NULL. */
void channel_opened(struct channel *channel, const struct report *extra);
/* Its command has ended, or there is none and everything is over. */
void channel_ended(struct channel *channel, int status);
/* Sends and grants what can be, waits for the rest, and ends it when it is over. */
void channel_update(struct channel *channel);
void channels_update(void);

/* Forks a child with pipes for its streams. `body` runs in it and never returns. */
typedef void channel_body(const struct fields *fields, int report);
void channel_spawn(struct channel *channel, const struct fields *fields, const char *cgroup,
                   channel_body *body);
/* Waits for what a child reports on this descriptor before the channel counts as open. */
void channel_await_report(struct channel *channel, int report);

/* Frames from the host. */
void channel_data(struct channel *channel, uint8_t stream, const uint8_t *bytes, uint32_t count);
void channel_end_of_input(struct channel *channel);
void channel_window(struct channel *channel, uint32_t count);
void channel_signal(struct channel *channel, int number);
void channel_close(struct channel *channel);
/* The conversation is over: every channel goes, terminals stay. */
void channels_drop(void);

#endif
