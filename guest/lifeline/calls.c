/* SPDX-License-Identifier: Apache-2.0 */
#include "calls.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "frame.h"
#include "identity.h"
#include "link.h"
#include "loop.h"
#include "place.h"
#include "process.h"
#include "terminal.h"

enum {
    JOBS = 8,
    /* systemd.special(7) counts from glibc's SIGRTMIN; musl's is one higher. */
    GLIBC_SIGRTMIN = 34,
    SYSTEMD_POWEROFF = GLIBC_SIGRTMIN + 4,
    SYSTEMD_REBOOT = GLIBC_SIGRTMIN + 5,
    SYNC_S = 5,
    /* From a slow boot's hand-over until systemd listens to signals. */
    INIT_MS = 10000,
    LOOK_EVERY_MS = 20,
};

/* A CALL that a child works on; its exit status is an errno. */
struct job {
    struct process process;
    int64_t id;
    bool silent;
    const char *step;
};

static struct job jobs[JOBS];

/* A shutdown that waits until the real init can act on it. */
static struct going_down {
    struct timer again; /* set while one waits */
    int64_t until;
    int64_t id;
    int signal;
    bool silent;
} going_down;

static void answer(int64_t id, struct writer *writer)
{
    struct writer whole = {0};

    write_number(&whole, TAG_ID, id);
    memcpy(whole.bytes + whole.size, writer->bytes,
           writer->size < sizeof(whole.bytes) - whole.size ? writer->size : 0);
    whole.size += writer->size < sizeof(whole.bytes) - whole.size ? writer->size : 0;
    link_send_fields(RESULT, 0, &whole);
}

static void answer_done(int64_t id, int error, const char *step)
{
    struct writer writer = {0};

    if (error != 0) {
        write_number(&writer, TAG_ERRNO, error);
        write_text(&writer, TAG_STEP, step);
        write_text(&writer, TAG_MESSAGE, strerror(error));
    }
    answer(id, &writer);
}

static void job_ended(struct process *process, int status)
{
    struct job *job = container_of(process, struct job, process);

    if (!job->silent)
        answer_done(job->id, WIFEXITED(status) ? WEXITSTATUS(status) : EINTR, job->step);
    job->step = NULL;
}

/* Runs `work` in a child inside the guest's root; NULL: it cannot, which is answered. */
static struct job *in_child(int64_t id, const char *step, const struct fields *fields,
                            int (*work)(const struct fields *))
{
    struct job *job = NULL;

    for (int slot = 0; slot < JOBS && job == NULL; slot++)
        if (jobs[slot].step == NULL)
            job = &jobs[slot];
    if (job == NULL) {
        answer_done(id, EBUSY, step);
        return NULL;
    }
    pid_t pid = process_fork(&job->process, job_ended);
    if (pid < 0) {
        answer_done(id, errno, step);
        return NULL;
    }
    if (pid == 0) {
        int null = open("/dev/null", O_RDWR | O_CLOEXEC), none = null < 0 ? 0 : null;
        child_begin((int[]){none, none, none}, 2, "files");
        _exit(fchdir(place.root) < 0 || chroot(".") < 0 ? errno : work(fields));
    }
    job->id = id;
    job->silent = false;
    job->step = step;
    return job;
}

void calls_forget(void)
{
    for (int slot = 0; slot < JOBS; slot++)
        jobs[slot].silent = true;
    going_down.silent = true;
}

static void call_ping(int64_t id, const struct fields *fields)
{
    struct writer writer = {0};

    (void)fields;
    write_number(&writer, TAG_TIME, now_ns());
    answer(id, &writer);
}

static void call_clock(int64_t id, const struct fields *fields)
{
    struct field given;
    bool set = fields_first(fields, TAG_TIME, &given);
    int64_t time = fields_number(fields, TAG_TIME, -1);
    struct timespec before, after = {.tv_sec = time / 1000000000, .tv_nsec = time % 1000000000};
    struct writer writer = {0};

    clock_gettime(CLOCK_REALTIME, &before);
    if (set && (time < 0 || place.trial || clock_settime(CLOCK_REALTIME, &after) < 0)) {
        answer_done(id, time < 0 ? EINVAL : place.trial ? EPERM : errno, "set the clock");
        return;
    }
    write_number(&writer, TAG_TIME, (int64_t)before.tv_sec * 1000000000 + before.tv_nsec);
    answer(id, &writer);
}

static void call_entropy(int64_t id, const struct fields *fields)
{
    struct field seed;

    if (!fields_first(fields, TAG_SECRET, &seed) || seed.length != SEED)
        answer_done(id, EINVAL, "read the seed");
    else
        answer_done(id, identity_entropy(seed.value), "add entropy");
}

static int sync_root(const struct fields *fields)
{
    (void)fields;
    int fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 || syncfs(fd) < 0 ? errno : 0;
}

static void call_sync(int64_t id, const struct fields *fields)
{
    in_child(id, "sync", fields, sync_root);
}

static void call_identity(int64_t id, const struct fields *fields)
{
    answer_done(id, place.trial ? EPERM : identity_set(fields), "set the identity");
}

static void call_terminals(int64_t id, const struct fields *fields)
{
    struct writer writer = {0};

    (void)fields;
    terminals_describe(&writer);
    answer(id, &writer);
}

static void call_hangup(int64_t id, const struct fields *fields)
{
    char name[32];
    bool known = fields_text(fields, TAG_TERMINAL, name, sizeof(name)) && terminal_hang_up(name);

    answer_done(id, known ? 0 : ENOENT, "hang up");
}

static void call_guest_client(int64_t id, const struct fields *fields)
{
    int error = 0;

    if (fields_flag(fields, "off") && unlinkat(place.home, "bin/bugbox", 0) < 0 && errno != ENOENT)
        error = errno;
    answer_done(id, error, "remove the client");
}

/* --- shutdown --- */

/* By its program: for its first moments it goes by the name it was run by, /sbin/init. */
static bool init_is_systemd(void)
{
    char path[128];
    ssize_t length = readlinkat(place.proc, "1/exe", path, sizeof(path) - 1);

    if (length < 0)
        return false;
    path[length] = '\0';
    return strstr(path, "/systemd/systemd") != NULL;
}

/* Process 1 is still what we came from: the real init has not been run yet. */
static bool init_is_to_come(void)
{
    struct stat first, own;

    return fstatat(place.proc, "1/exe", &first, 0) == 0 &&
           fstatat(place.proc, "self/exe", &own, 0) == 0 && first.st_dev == own.st_dev &&
           first.st_ino == own.st_ino;
}

static bool has_bit(const char *status, const char *key, int number)
{
    const char *line = strstr(status, key);

    return line != NULL && (strtoull(line + strlen(key), NULL, 16) >> (number - 1) & 1);
}

/* The kernel drops a signal for process 1 that it neither handles nor blocks, and tells nobody. */
static bool init_listens(int number)
{
    char status[4096];

    return place_read(place.proc, "1/status", status, sizeof(status)) &&
           (has_bit(status, "\nSigCgt:\t", number) || has_bit(status, "\nSigBlk:\t", number));
}

/* In two children: a disk that hangs must not keep the machine from going down. */
static void go_down_now(int how)
{
    if (fork() == 0) {
        sleep(SYNC_S);
        reboot(how);
        _exit(1);
    }
    if (fork() == 0) {
        sync();
        if (fchdir(place.root) == 0 && chroot(".") == 0)
            mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL);
        reboot(how);
        _exit(1);
    }
}

static int ask_other_init(const struct fields *fields)
{
    const char *program = going_down.signal == SYSTEMD_REBOOT ? "/sbin/reboot" : "/sbin/poweroff";

    (void)fields;
    execl(program, program, (char *)NULL);
    return errno;
}

static void ask_init(struct timer *timer)
{
    const char *step = "ask the init";
    bool to_come = init_is_to_come(), systemd = init_is_systemd();
    bool listens = !to_come && systemd && init_listens(going_down.signal);
    int error = ETIMEDOUT;

    if (!to_come && !systemd) {
        struct job *job = in_child(going_down.id, step, NULL, ask_other_init);
        if (job != NULL)
            job->silent = going_down.silent;
        return;
    }
    if (!listens && now_ms() < going_down.until) {
        timer_set(timer, LOOK_EVERY_MS, ask_init);
        return;
    }
    if (listens)
        error = kill(1, going_down.signal) < 0 ? errno : 0;
    if (!going_down.silent)
        answer_done(going_down.id, error, step);
}

static void ask_init_soon(int64_t id, int signal)
{
    if (going_down.again.at != 0) {
        answer_done(id, EALREADY, "ask the init");
        return;
    }
    going_down.until = now_ms() + INIT_MS;
    going_down.id = id;
    going_down.signal = signal;
    going_down.silent = false;
    ask_init(&going_down.again);
}

static void call_shutdown(int64_t id, const struct fields *fields)
{
    char name[16] = "";
    bool known = fields_text(fields, TAG_NAME, name, sizeof(name));
    bool off = known && strcmp(name, "poweroff") == 0;
    bool now = known && strcmp(name, "now") == 0;

    if (!off && !now && !(known && strcmp(name, "reboot") == 0)) {
        answer_done(id, EINVAL, "read how to go down");
    } else if (place.trial) {
        answer_done(id, EPERM, "go down");
    } else if (now || place.alone) {
        answer_done(id, 0, NULL);
        go_down_now(off ? RB_POWER_OFF : RB_AUTOBOOT);
    } else {
        ask_init_soon(id, off ? SYSTEMD_POWEROFF : SYSTEMD_REBOOT);
    }
}

void call(const struct fields *fields)
{
    static const struct {
        const char *kind;
        void (*answer)(int64_t id, const struct fields *fields);
    } kinds[] = {
        {"ping", call_ping},
        {"shutdown", call_shutdown},
        {"sync", call_sync},
        {"clock", call_clock},
        {"entropy", call_entropy},
        {"identity", call_identity},
        {"terminals", call_terminals},
        {"hangup", call_hangup},
        {"guest-client", call_guest_client},
    };
    int64_t id = fields_number(fields, TAG_ID, 0);
    char kind[32] = "";

    fields_text(fields, TAG_KIND, kind, sizeof(kind));
    for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
        if (strcmp(kinds[i].kind, kind) == 0) {
            kinds[i].answer(id, fields);
            return;
        }
    answer_done(id, ENOSYS, "find the kind of call");
}
