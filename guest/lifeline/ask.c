/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Anybody in the guest may connect, so everything is small and counted: four questions at once,
 * one a second on average, a bounded question, a bounded answer, a bounded time.
 */
#include "ask.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "conversation.h"
#include "link.h"
#include "loop.h"
#include "place.h"
#include "ring.h"

enum {
    AT_ONCE = 4,
    QUESTION = 1024,
    ANSWER_SIZE = 65536,
    EVERY_MS = 1000,
    QUESTION_MS = 5000, /* to send the question */
    ANSWER_MS = 300000, /* to be answered: a check may take its time */
    READ_MS = 30000,    /* to read the answer */
    WRONG = 2,
    TRY_LATER = 75, /* EX_TEMPFAIL */
};

struct question {
    struct watch watch;
    struct timer patience;
    int64_t id; /* 0: not asked yet, or already answered */
    bool answered;
    size_t size;
    char text[QUESTION];
    struct ring answer;
};

static struct watch listener = {.fd = -1};
static struct question questions[AT_ONCE];
static int64_t last_id;
static int64_t tokens_since;
static int tokens = AT_ONCE;

static void end(struct question *question)
{
    timer_stop(&question->patience);
    watch_close(&question->watch);
    ring_free(&question->answer);
    question->id = 0;
}

static void out_of_patience(struct timer *timer);

static void write_answer(struct question *question)
{
    const uint8_t *bytes;
    size_t count;

    while ((count = ring_peek(&question->answer, &bytes)) > 0) {
        ssize_t sent = write(question->watch.fd, bytes, count);
        if (sent < 0 && errno == EAGAIN)
            break;
        if (sent < 0) {
            end(question);
            return;
        }
        ring_drop(&question->answer, (size_t)sent);
    }
    if (question->answered && question->answer.used == 0)
        end(question);
    else
        watch_want(&question->watch, EPOLLIN | (question->answer.used > 0 ? EPOLLOUT : 0));
}

/* The last part: the status goes after a NUL, as the last byte of all. */
static void finish(struct question *question, const char *sentence, int code)
{
    uint8_t status[2] = {0, (uint8_t)code};

    if (sentence != NULL)
        ring_push(&question->answer, sentence, strlen(sentence));
    /* The ring keeps two bytes of room for this. */
    ring_push(&question->answer, status, sizeof(status));
    question->id = 0;
    question->answered = true;
    timer_set(&question->patience, READ_MS, out_of_patience);
    write_answer(question);
}

static void out_of_patience(struct timer *timer)
{
    struct question *question = container_of(timer, struct question, patience);

    if (question->answered)
        end(question);
    else if (question->id != 0)
        finish(question, "bugbox: no answer from outside; try again later\n", TRY_LATER);
    else
        finish(question, "bugbox: no question came\n", WRONG);
}

static bool take_token(void)
{
    int64_t now = now_ms(), gained = (now - tokens_since) / EVERY_MS;

    if (gained > 0) {
        tokens = gained > AT_ONCE - tokens ? AT_ONCE : tokens + (int)gained;
        tokens_since = now;
    }
    if (tokens == 0)
        return false;
    tokens--;
    return true;
}

static bool is_verb(const char *text)
{
    return strcmp(text, "check") == 0 || strcmp(text, "hint") == 0 || strcmp(text, "story") == 0;
}

static void pass_on(struct question *question)
{
    struct writer writer = {0};
    const char *argument = question->text;

    if (!is_verb(argument)) {
        finish(question, "bugbox: it understands check, hint and story\n", WRONG);
        return;
    }
    if (!take_token()) {
        finish(question, "bugbox: too many questions; wait a second\n", TRY_LATER);
        return;
    }
    if (!conversation_is_on()) {
        finish(question, "bugbox: nobody outside is listening; try again later\n", TRY_LATER);
        return;
    }
    question->id = ++last_id;
    write_number(&writer, TAG_ID, question->id);
    write_text(&writer, TAG_NAME, argument);
    while (*(argument += strlen(argument) + 1) != '\0')
        write_text(&writer, TAG_ARG, argument);
    link_send_fields(ASK, 0, &writer);
    timer_set(&question->patience, ANSWER_MS, out_of_patience);
}

static void read_question(struct question *question)
{
    size_t room = sizeof(question->text) - question->size;
    ssize_t count = read(question->watch.fd, question->text + question->size, room);

    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (count <= 0) {
        end(question); /* Gone, or the question is longer than any. */
        return;
    }
    question->size += (size_t)count;
    const char *text = question->text;
    if (question->size >= 2 && text[question->size - 1] == '\0' && text[question->size - 2] == '\0')
        pass_on(question);
    else if (question->size == sizeof(question->text))
        finish(question, "bugbox: the question is too long\n", WRONG);
}

/* After the question, only its end is of interest: somebody pressed Ctrl-C. */
static void look_for_the_end(struct question *question)
{
    char byte;
    ssize_t count = recv(question->watch.fd, &byte, 1, MSG_DONTWAIT);

    if (count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR))
        end(question);
}

static void client_ready(struct watch *watch, uint32_t events)
{
    struct question *question = container_of(watch, struct question, watch);

    if (question->id == 0 && !question->answered)
        read_question(question);
    else if (events & EPOLLOUT)
        write_answer(question);
    else
        look_for_the_end(question);
}

static void turn_away(int fd)
{
    static const char busy[] = "bugbox: too many questions at once; try again\n\0K"; /* K: 75 */

    /* The last NUL is the compiler's. A fresh socket has room for a sentence. */
    if (write(fd, busy, sizeof(busy) - 1) < 0)
        errno = 0;
    close(fd);
}

static void client_comes(struct watch *watch, uint32_t events)
{
    int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    (void)events;
    if (fd < 0)
        return;
    for (int slot = 0; slot < AT_ONCE; slot++) {
        struct question *question = &questions[slot];
        if (question->watch.fd >= 0)
            continue;
        *question = (struct question){.id = 0};
        ring_init(&question->answer, ANSWER_SIZE);
        watch_init(&question->watch, fd, client_ready);
        watch_want(&question->watch, EPOLLIN);
        timer_set(&question->patience, QUESTION_MS, out_of_patience);
        return;
    }
    turn_away(fd);
}

void ask_answer(const struct fields *fields, bool last)
{
    int64_t id = fields_number(fields, TAG_ID, 0);
    struct field data;

    for (int slot = 0; slot < AT_ONCE; slot++) {
        struct question *question = &questions[slot];
        if (id == 0 || question->watch.fd < 0 || question->id != id)
            continue;
        if (fields_first(fields, TAG_DATA, &data) &&
            data.length + 2 <= ring_room(&question->answer))
            ring_push(&question->answer, data.value, data.length);
        if (last)
            finish(question, NULL, (int)fields_number(fields, TAG_CODE, 0));
        else
            write_answer(question);
        return;
    }
}

void ask_forget(void)
{
    for (int slot = 0; slot < AT_ONCE; slot++)
        if (questions[slot].watch.fd >= 0 && questions[slot].id != 0)
            finish(&questions[slot], "bugbox: the line to outside was cut; ask again\n",
                   TRY_LATER);
}

/* The name is relative to the folder, which we alone can write to. */
static int listen_at(const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int here = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    strcpy(address.sun_path, name);
    if (fd < 0 || here < 0 || fchdir(place.home) < 0)
        return -1;
    unlink(name);
    bool bound = bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 &&
                 chmod(name, 0666) == 0 && listen(fd, AT_ONCE) == 0;
    if (fchdir(here) < 0 || !bound) {
        close(fd);
        fd = -1;
    }
    close(here);
    return fd;
}

void ask_init(void)
{
    for (int slot = 0; slot < AT_ONCE; slot++)
        questions[slot].watch.fd = -1;
    tokens_since = now_ms();
    if (place.home < 0)
        return;
    watch_init(&listener, listen_at("ask"), client_comes);
    watch_want(&listener, EPOLLIN);
}
