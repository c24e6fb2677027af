/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stream is read only while the host has granted credit and the link has room, so a command that
 * writes without end stands still as it would on a full pipe, and memory does not grow.
 */
#include "channel.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "discard.h"
#include "link.h"
#include "terminal.h"

enum {
    /* How long a command's streams may stay open after its end: what it left behind holds them. */
    AFTER_END_MS = 100,
    /* How long a killed command may take; longer, and it hangs in the kernel. */
    AFTER_CLOSE_MS = 2000,
    /* What a terminal may still bring after its shell's end: there is no asking how much. */
    TERMINAL_LAST = 65536,
};

static struct channel table[CHANNELS];

struct channel *channel_find(uint32_t id)
{
    for (int slot = 0; id != 0 && slot < CHANNELS; slot++)
        if (table[slot].id == id)
            return &table[slot];
    return NULL;
}

struct channel *channel_new(uint32_t id)
{
    for (int slot = 0; slot < CHANNELS; slot++) {
        struct channel *channel = &table[slot];
        if (channel->id != 0)
            continue;
        *channel = (struct channel){.id = id, .credit = CREDIT, .allowed = CREDIT};
        channel->in.watch.fd = channel->side.fd = -1;
        ring_init(&channel->in.ring, CREDIT);
        for (int number = 0; number < 2; number++) {
            channel->out[number].watch.fd = -1;
            channel->out[number].channel = channel;
            channel->out[number].last = -1;
        }
        return channel;
    }
    return NULL;
}

void channel_free(struct channel *channel)
{
    if (channel->terminal != NULL)
        terminal_detached(channel->terminal);
    process_forget(&channel->process);
    timer_stop(&channel->patience);
    watch_close(&channel->in.watch);
    watch_close(&channel->out[0].watch);
    watch_close(&channel->out[1].watch);
    watch_close(&channel->side);
    ring_free(&channel->in.ring);
    channel->id = 0;
}

void channel_fail(struct channel *channel, int error, const char *step, const char *message)
{
    struct writer writer = {0};

    write_number(&writer, TAG_ERRNO, error);
    write_text(&writer, TAG_STEP, step);
    write_text(&writer, TAG_MESSAGE, message != NULL ? message : strerror(error));
    link_send_fields(FAILED, channel->id, &writer);
    if (channel->terminal == NULL && !channel->keep_running)
        process_signal(&channel->process, SIGKILL);
    channel_free(channel);
}

void channel_opened(struct channel *channel, const struct report *extra)
{
    struct writer writer = {0};

    channel->opened = true;
    if (channel->group > 0)
        write_number(&writer, TAG_PID, channel->group);
    if (channel->terminal != NULL)
        terminal_describe(channel->terminal, &writer);
    if (extra != NULL) {
        write_number(&writer, TAG_SIZE, extra->size);
        write_number(&writer, TAG_MODE, extra->mode);
    }
    link_send_fields(OPENED, channel->id, &writer);
}

/* --- output --- */

static uint8_t stream_of(const struct output *output)
{
    return output == &output->channel->out[0] ? 1 : 2;
}

static bool may_send(const struct output *output)
{
    return output->channel->opened && output->channel->credit > 0 && link_has_room();
}

static size_t most(const struct output *output)
{
    size_t count = output->channel->credit < FRAME_DATA ? output->channel->credit : FRAME_DATA;

    if (output->last >= 0 && (size_t)output->last < count)
        count = (size_t)output->last;
    return count;
}

static void send_data(struct output *output, const uint8_t *bytes, size_t count)
{
    link_send(DATA, stream_of(output), output->channel->id, bytes, count);
    output->channel->credit -= (uint32_t)count;
    if (output->last >= 0)
        output->last -= (int64_t)count;
}

static void end_output(struct output *output)
{
    struct channel *channel = output->channel;

    link_send(END, stream_of(output), channel->id, NULL, 0);
    /* What the command left running may write on, and must not die of it. */
    if (channel->ended && channel->terminal == NULL && !channel->closing)
        discard(&output->watch);
    else
        watch_close(&output->watch);
}

static void send_kept(struct output *output)
{
    while (output->before != NULL && may_send(output)) {
        const uint8_t *bytes;
        size_t count = ring_peek(output->before, &bytes);
        if (count == 0) {
            output->before = NULL;
            return;
        }
        if (count > most(output))
            count = most(output);
        send_data(output, bytes, count);
        ring_drop(output->before, count);
    }
}

/* Sends once, or ends the stream, or finds that there is nothing yet. */
static void pump(struct output *output)
{
    uint8_t bytes[FRAME_DATA];
    size_t wanted = most(output);
    ssize_t count = wanted == 0 ? 0 : read(output->watch.fd, bytes, wanted);

    if (count > 0)
        send_data(output, bytes, (size_t)count);
    else if (count == 0 || (errno != EAGAIN && errno != EINTR) || output->last >= 0)
        end_output(output); /* A terminal whose last holder is gone reads EIO. */
}

static void output_ready(struct watch *watch, uint32_t events)
{
    struct output *output = container_of(watch, struct output, watch);

    (void)events;
    if (may_send(output))
        pump(output);
    channel_update(output->channel);
}

static void update_output(struct output *output)
{
    if (output->watch.fd < 0)
        return;
    send_kept(output);
    while (output->last >= 0 && output->watch.fd >= 0 && output->before == NULL &&
           may_send(output))
        pump(output);
    watch_want(&output->watch, output->before == NULL && may_send(output) ? EPOLLIN : 0);
}

/* --- input --- */

static void grant(struct channel *channel, size_t count)
{
    uint8_t payload[4];

    channel->passed += (uint32_t)count;
    if (channel->passed < GRANT_STEP)
        return;
    put32(payload, channel->passed);
    channel->allowed += channel->passed;
    channel->passed = 0;
    link_send(WINDOW, 0, channel->id, payload, sizeof(payload));
}

/* Nobody reads it any more: what comes is taken and thrown away, so that the host is not stuck. */
static void break_input(struct channel *channel)
{
    size_t lost = channel->in.ring.used;

    watch_close(&channel->in.watch);
    ring_free(&channel->in.ring);
    grant(channel, lost);
}

static void write_input(struct channel *channel)
{
    struct input *in = &channel->in;
    const uint8_t *bytes;
    size_t count;

    while (in->watch.fd >= 0 && (count = ring_peek(&in->ring, &bytes)) > 0) {
        ssize_t sent = write(in->watch.fd, bytes, count);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno == EAGAIN)
            return;
        if (sent < 0) {
            break_input(channel);
            return;
        }
        ring_drop(&in->ring, (size_t)sent);
        grant(channel, (size_t)sent);
    }
}

static void finish_input(struct channel *channel)
{
    struct input *in = &channel->in;

    if (!in->ending || in->ring.used > 0 || in->watch.fd < 0)
        return;
    if (in->is_terminal) {
        in->ending = false;
        ring_push(&in->ring, "\x04", 1); /* The end of input, as a person would type it. */
        write_input(channel);
        return;
    }
    if (channel->group == 0)
        shutdown(in->watch.fd, SHUT_WR); /* A connection: its other direction stays. */
    watch_close(&in->watch);
}

static void input_ready(struct watch *watch, uint32_t events)
{
    struct channel *channel = container_of(watch, struct channel, in.watch);

    if ((events & EPOLLERR) && !(events & EPOLLOUT))
        break_input(channel); /* The reader closed its end of the pipe. */
    else
        write_input(channel);
    channel_update(channel);
}

/* --- the end --- */

static void send_exit(struct channel *channel)
{
    struct writer writer = {0};

    if (WIFSIGNALED(channel->status))
        write_number(&writer, TAG_SIGNO, WTERMSIG(channel->status));
    else
        write_number(&writer, TAG_CODE, WEXITSTATUS(channel->status));
    link_send_fields(EXIT, channel->id, &writer);
}

static bool is_over(const struct channel *channel)
{
    if (!channel->opened || channel->out[0].watch.fd >= 0 || channel->out[1].watch.fd >= 0)
        return false;
    if (channel->ended)
        return true;
    /* A dialled connection has no command: it is over when both directions are. */
    return channel->group == 0 && channel->terminal == NULL && channel->in.watch.fd < 0;
}

void channel_update(struct channel *channel)
{
    if (channel->id == 0)
        return;
    finish_input(channel);
    update_output(&channel->out[0]);
    update_output(&channel->out[1]);
    if (is_over(channel)) {
        send_exit(channel);
        channel_free(channel);
        return;
    }
    watch_want(&channel->in.watch, channel->in.ring.used > 0 ? EPOLLOUT : 0);
}

void channels_update(void)
{
    for (int slot = 0; slot < CHANNELS && link_has_room(); slot++)
        channel_update(&table[slot]);
}

/* What is in the pipe now is the command's; what comes later is not waited for. */
static void stop_waiting(struct timer *timer)
{
    struct channel *channel = container_of(timer, struct channel, patience);

    for (int number = 0; number < 2; number++) {
        struct output *output = &channel->out[number];
        int held = 0;
        if (output->watch.fd < 0)
            continue;
        if (channel->closing) {
            end_output(output);
            continue;
        }
        ioctl(output->watch.fd, FIONREAD, &held);
        output->last = channel->terminal != NULL ? TERMINAL_LAST : held;
    }
    channel_update(channel);
}

void channel_ended(struct channel *channel, int status)
{
    channel->ended = true;
    channel->status = status;
    if (channel->side.fd >= 0)
        channel->side.ready(&channel->side, EPOLLIN);
    if (channel->id == 0)
        return;
    timer_set(&channel->patience, channel->closing ? 0 : AFTER_END_MS, stop_waiting);
    channel_update(channel);
}

static void child_ended(struct process *process, int status)
{
    channel_ended(container_of(process, struct channel, process), status);
}

/* --- starting --- */

void channel_streams(struct channel *channel, int in, int out, int err)
{
    watch_init(&channel->in.watch, in, input_ready);
    watch_init(&channel->out[0].watch, out, output_ready);
    watch_init(&channel->out[1].watch, err, output_ready);
}

static void report_ready(struct watch *watch, uint32_t events)
{
    struct channel *channel = container_of(watch, struct channel, side);
    struct report report;
    ssize_t count = read(watch->fd, &report, sizeof(report));

    (void)events;
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (count == sizeof(report) && report.error != 0) {
        report.step[sizeof(report.step) - 1] = report.message[sizeof(report.message) - 1] = '\0';
        channel_fail(channel, report.error, report.step, report.message);
        return;
    }
    if (count != sizeof(report))
        watch_close(watch); /* It runs something else now, or has ended: nothing more to say. */
    if (!channel->opened)
        channel_opened(channel, count == sizeof(report) ? &report : NULL);
    if (channel->ended && channel->side.fd >= 0) {
        report_ready(watch, events);
        return;
    }
    channel_update(channel);
}

void channel_await_report(struct channel *channel, int report)
{
    watch_init(&channel->side, report, report_ready);
    watch_want(&channel->side, EPOLLIN);
}

/* Pairs 0 stdin, 1 stdout, 2 stderr, 3 the report; the parent's ends do not block. */
static bool make_pipes(int pipes[4][2])
{
    for (int number = 0; number < 4; number++) {
        if (pipe2(pipes[number], O_CLOEXEC) < 0) {
            while (number-- > 0) {
                close(pipes[number][0]);
                close(pipes[number][1]);
            }
            return false;
        }
        fcntl(pipes[number][number == 0], F_SETFL, O_NONBLOCK);
    }
    return true;
}

void channel_spawn(struct channel *channel, const struct fields *fields, const char *cgroup,
                   channel_body *body)
{
    int pipes[4][2];

    if (!make_pipes(pipes)) {
        channel_fail(channel, errno, "make pipes", NULL);
        return;
    }
    pid_t pid = process_fork(&channel->process, child_ended);
    if (pid == 0) {
        child_begin((int[]){pipes[0][0], pipes[1][1], pipes[2][1]}, pipes[3][1], cgroup);
        body(fields, pipes[3][1]);
        _exit(126);
    }
    int error = errno;
    close(pipes[0][0]);
    for (int number = 1; number < 4; number++)
        close(pipes[number][1]);
    channel_streams(channel, pipes[0][1], pipes[1][0], pipes[2][0]);
    channel_await_report(channel, pipes[3][0]);
    if (pid < 0)
        channel_fail(channel, error, "fork", NULL);
    else
        channel->group = pid;
}

/* --- frames --- */

/* What is taken at once needs no memory of ours; what is not, the ring's way tries again. */
static uint32_t write_through(struct channel *channel, const uint8_t *bytes, uint32_t count)
{
    if (!channel->opened || channel->in.watch.fd < 0 || channel->in.ring.used > 0)
        return 0;
    ssize_t sent = write(channel->in.watch.fd, bytes, count);
    if (sent <= 0)
        return 0;
    grant(channel, (size_t)sent);
    return (uint32_t)sent;
}

static void take_input(struct channel *channel, const uint8_t *bytes, uint32_t count)
{
    uint32_t sent = write_through(channel, bytes, count);

    if (!ring_push(&channel->in.ring, bytes + sent, count - sent))
        grant(channel, count - sent);
    else if (channel->opened)
        write_input(channel);
}

void channel_data(struct channel *channel, uint8_t stream, const uint8_t *bytes, uint32_t count)
{
    if (stream != 0 || count > channel->allowed || count > FRAME_DATA) {
        channel_fail(channel, EPROTO, "take data", "more than the credit, or the wrong stream");
        return;
    }
    channel->allowed -= count;
    bool unread = channel->opened && channel->in.watch.fd < 0;
    if (unread || channel->in.ending)
        grant(channel, count);
    else
        take_input(channel, bytes, count);
    channel_update(channel);
}

void channel_end_of_input(struct channel *channel)
{
    channel->in.ending = true;
    channel_update(channel);
}

void channel_window(struct channel *channel, uint32_t count)
{
    if (count > INT32_MAX - channel->credit) {
        channel_fail(channel, EPROTO, "take a window", "too much credit");
        return;
    }
    channel->credit += count;
    channel_update(channel);
}

void channel_signal(struct channel *channel, int number)
{
    if (number < 1 || number > 64)
        return;
    if (channel->terminal != NULL)
        terminal_signal(channel->terminal, number);
    else
        process_signal(&channel->process, number);
}

static void give_up(struct timer *timer)
{
    struct channel *channel = container_of(timer, struct channel, patience);

    channel->opened = channel->ended = true;
    channel->status = SIGKILL;
    stop_waiting(timer);
}

void channel_close(struct channel *channel)
{
    channel->closing = true;
    if (channel->terminal != NULL || channel->group == 0) {
        /* A terminal lives on detached, a connection is closed: nothing to wait for. */
        send_exit(channel);
        channel_free(channel);
        return;
    }
    if (channel->ends_itself)
        break_input(channel);
    else
        process_signal(&channel->process, SIGKILL);
    timer_set(&channel->patience, channel->ended ? 0 : AFTER_CLOSE_MS, give_up);
}

static void drop(struct channel *channel)
{
    if (channel->keep_running) {
        discard(&channel->out[0].watch);
        discard(&channel->out[1].watch);
    } else if (channel->terminal == NULL && !channel->ends_itself) {
        process_signal(&channel->process, SIGKILL);
    }
    channel_free(channel);
}

void channels_drop(void)
{
    for (int slot = 0; slot < CHANNELS; slot++)
        if (table[slot].id != 0)
            drop(&table[slot]);
}
