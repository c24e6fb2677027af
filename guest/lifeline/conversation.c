/* SPDX-License-Identifier: Apache-2.0 */
#include "conversation.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ask.h"
#include "calls.h"
#include "channel.h"
#include "dial.h"
#include "exec.h"
#include "files.h"
#include "link.h"
#include "place.h"
#include "port.h"
#include "terminal.h"

enum { VERSION = 1, MILESTONES = 8 };

static struct {
    char name[16];
    int64_t time;
} milestones[MILESTONES];
static int milestone_count;
static char boot_id[64];
static bool on;

bool conversation_is_on(void)
{
    return on;
}

static void send_milestone(int number)
{
    struct writer writer = {0};

    write_text(&writer, TAG_NAME, milestones[number].name);
    write_number(&writer, TAG_TIME, milestones[number].time);
    link_send_fields(MILESTONE, 0, &writer);
}

void milestone(const char *name, int64_t time)
{
    if (milestone_count == MILESTONES)
        return;
    snprintf(milestones[milestone_count].name, sizeof(milestones[0].name), "%s", name);
    milestones[milestone_count].time = time;
    if (on)
        send_milestone(milestone_count);
    milestone_count++;
}

void milestones_parse(const char *list)
{
    while (list != NULL && *list != '\0') {
        char name[16];
        long long time;
        if (sscanf(list, "%15[a-z]=%lld", name, &time) == 2)
            milestone(name, time);
        list = strchr(list, ',');
        list += list != NULL;
    }
}

static void send_hello(void)
{
    struct writer writer = {0};

    write_number(&writer, TAG_VERSION, VERSION);
    write_text(&writer, TAG_BOOT_ID, boot_id);
    write_text(&writer, TAG_STARTED, place.started);
    write_number(&writer, TAG_TIME, now_ns());
    terminals_describe(&writer);
    link_send_fields(HELLO, 0, &writer);
}

/* Nothing of an earlier conversation is left, but terminals and what was meant to outlive it. */
static void end_conversation(void)
{
    on = false;
    channels_drop();
    calls_forget();
    ask_forget();
    link_forget();
}

static void synchronize(const struct frame *frame)
{
    end_conversation();
    link_send(SYNC, 0, 0, frame->payload, frame->length);
    on = true;
    send_hello();
    for (int number = 0; number < milestone_count; number++)
        send_milestone(number);
}

static void refuse(uint32_t id, int error, const char *step, const char *message)
{
    struct writer writer = {0};

    write_number(&writer, TAG_ERRNO, error);
    write_text(&writer, TAG_STEP, step);
    write_text(&writer, TAG_MESSAGE, message);
    link_send_fields(FAILED, id, &writer);
}

static void open_channel(const struct frame *frame, const struct fields *fields)
{
    static const struct {
        const char *kind;
        void (*open)(struct channel *channel, const struct fields *fields);
    } kinds[] = {
        {"exec", exec_open},       {"script", script_open}, {"terminal", terminal_open},
        {"attach", terminal_attach}, {"put", put_open},     {"get", get_open},
        {"dial", dial_open},
    };
    char kind[16] = "";

    if (frame->channel == 0 || channel_find(frame->channel) != NULL) {
        refuse(0, EBUSY, "open a channel", "its number is taken");
        return;
    }
    fields_text(fields, TAG_KIND, kind, sizeof(kind));
    for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
        if (strcmp(kinds[i].kind, kind) != 0)
            continue;
        struct channel *channel = channel_new(frame->channel);
        if (channel == NULL)
            refuse(frame->channel, EMFILE, "open a channel", "too many channels");
        else
            kinds[i].open(channel, fields);
        return;
    }
    refuse(frame->channel, ENOSYS, "open a channel", "no such kind");
}

/* A channel may have ended while a frame for it was under way: such frames are dropped. */
static void for_channel(const struct frame *frame, const struct fields *fields)
{
    struct channel *channel = channel_find(frame->channel);

    if (channel == NULL)
        return;
    switch (frame->type) {
    case DATA:
        channel_data(channel, frame->flags, frame->payload, frame->length);
        break;
    case END:
        channel_end_of_input(channel);
        break;
    case WINDOW:
        if (frame->length == 4)
            channel_window(channel, get32(frame->payload));
        break;
    case SIGNAL:
        channel_signal(channel, (int)fields_number(fields, TAG_SIGNO, 0));
        break;
    case RESIZE:
        if (channel->terminal != NULL)
            terminal_resize(channel->terminal, fields);
        break;
    case CLOSE:
        channel_close(channel);
        break;
    default:
        break;
    }
}

static bool has_fields(uint8_t type)
{
    return type == OPEN || type == SIGNAL || type == RESIZE || type == CALL || type == ANSWER;
}

static void handle(const struct frame *frame)
{
    struct fields fields = {.bytes = frame->payload, .size = frame->length};

    if (frame->type == SYNC) {
        synchronize(frame);
        return;
    }
    if (!on)
        return;
    if (has_fields(frame->type) && !fields_are_whole(&fields)) {
        refuse(0, EPROTO, "read the fields", "they do not fill the frame");
        return;
    }
    if (frame->type == OPEN)
        open_channel(frame, &fields);
    else if (frame->type == CALL)
        call(&fields);
    else if (frame->type == ANSWER)
        ask_answer(&fields, frame->flags & 1);
    else
        for_channel(frame, &fields);
}

static void host_is_away(void)
{
    end_conversation();
    port_away();
}

static void port_is_gone(void)
{
    end_conversation();
    port_search();
}

void conversation_init(void)
{
    static const struct link_events events = {
        .frame = handle,
        .away = host_is_away,
        .room = channels_update,
        .broken = port_is_gone,
    };

    place_read(place.proc, "sys/kernel/random/boot_id", boot_id, sizeof(boot_id));
    link_init(&events);
}
