/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent holds the slave side open too. login hangs the line up and opens it again; without
 * another holder the master would read EIO in between, as if the session were over.
 */
#include "terminal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "command.h"
#include "mounts.h"
#include "place.h"
#include "tools.h"

#ifndef TIOCGPTPEER
#define TIOCGPTPEER 0x5441
#endif

enum {
    TERMINALS = 64,
    KEPT = 65536,
    HANG_UP_MS = 2000,
    DEVPTS_MAGIC = 0x1cd1,
};

struct terminal {
    bool used;
    bool own_devpts; /* its device number means another terminal in the guest */
    char id[32];
    int slave; /* -1 once its session has ended */
    struct watch master; /* watched only while nobody is attached */
    struct ring kept;
    struct process process;
    struct channel *channel;
    struct timer hang_up;
};

static struct terminal table[TERMINALS];
static unsigned int made;

static struct terminal *find(const char *id)
{
    for (int slot = 0; slot < TERMINALS; slot++)
        if (table[slot].used && table[slot].slave >= 0 && strcmp(table[slot].id, id) == 0)
            return &table[slot];
    return NULL;
}

static void free_terminal(struct terminal *terminal)
{
    timer_stop(&terminal->hang_up);
    watch_close(&terminal->master);
    if (terminal->slave >= 0)
        close(terminal->slave);
    ring_free(&terminal->kept);
    terminal->used = false;
}

static void keep_output(struct watch *watch, uint32_t events)
{
    struct terminal *terminal = container_of(watch, struct terminal, master);
    uint8_t bytes[16384];
    ssize_t count = read(watch->fd, bytes, sizeof(bytes));

    (void)events;
    if (count > 0)
        ring_push_over(&terminal->kept, bytes, (size_t)count);
    else if (count == 0 || (errno != EAGAIN && errno != EINTR))
        watch_want(watch, 0);
}

void terminal_detached(struct terminal *terminal)
{
    terminal->channel = NULL;
    if (terminal->process.pid == 0)
        free_terminal(terminal);
    else
        watch_want(&terminal->master, EPOLLIN);
}

static void session_ended(struct process *process, int status)
{
    struct terminal *terminal = container_of(process, struct terminal, process);

    close(terminal->slave);
    terminal->slave = -1;
    if (terminal->channel != NULL)
        channel_ended(terminal->channel, status);
    else
        free_terminal(terminal);
}

/* --- pseudo terminals --- */

static int open_master(bool rescue, bool *own_devpts)
{
    int fd = place_guest("dev/pts/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK);

    if (fd < 0)
        fd = place_guest("dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK);
    if (fd >= 0 || !rescue)
        return fd;
    *own_devpts = true;
    int own = mount_detached("devpts");
    if (own < 0)
        return -1;
    fd = openat(own, "ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    int error = errno;
    close(own);
    errno = error;
    return fd;
}

static int open_slave(int master)
{
    int unlocked = 0;

    if (ioctl(master, TIOCSPTLCK, &unlocked) < 0)
        return -1;
    return ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
}

static void set_size(int fd, const struct fields *fields)
{
    int64_t rows = fields_number(fields, TAG_ROWS, 0), cols = fields_number(fields, TAG_COLS, 0);
    struct winsize size = {.ws_row = (unsigned short)rows, .ws_col = (unsigned short)cols};

    if (rows > 0 && rows <= 10000 && cols > 0 && cols <= 10000)
        ioctl(fd, TIOCSWINSZ, &size);
}

void terminal_resize(struct terminal *terminal, const struct fields *fields)
{
    set_size(terminal->master.fd, fields);
}

void terminal_signal(struct terminal *terminal, int number)
{
    pid_t group = 0;

    /* TIOCSIG would be the short way, but takes only what a keyboard can send. */
    if (ioctl(terminal->master.fd, TIOCGPGRP, &group) == 0 && group > 1)
        kill(-group, number);
}

/* --- in the child --- */

/* Without its description a terminal's programs would refuse to work. */
static void set_term(struct environment *environment, const struct fields *fields)
{
    static const char *const folders[] = {"/etc/terminfo", "/lib/terminfo", "/usr/share/terminfo"};
    char term[64], path[128], assignment[80];
    bool known = false;

    if (!fields_text(fields, TAG_TERM, term, sizeof(term)) || strchr(term, '/') != NULL)
        term[0] = '\0';
    for (size_t i = 0; i < sizeof(folders) / sizeof(*folders) && term[0] != '\0'; i++) {
        snprintf(path, sizeof(path), "%s/%c/%s", folders[i], term[0], term);
        known = known || access(path, F_OK) == 0;
    }
    snprintf(assignment, sizeof(assignment), "TERM=%s", known ? term : "xterm-256color");
    environment_set(environment, assignment);
}

static _Noreturn void run_login(const struct fields *fields, int report)
{
    struct environment environment = {0};
    char user[64] = "root";
    char *argv[] = {"/bin/login", "-p", "-f", user, NULL};

    fields_text(fields, TAG_USER, user, sizeof(user));
    if (fields_flag(fields, "unrecorded"))
        namespace_without_records();
    environment_set(&environment, "LANG=C.UTF-8");
    environment_add(&environment, fields);
    set_term(&environment, fields);
    if (chdir("/") == 0)
        execve(argv[0], argv, environment.items);
    child_fail(report, errno, "run /bin/login", argv[0]);
}

static _Noreturn void run_rescue(const struct fields *fields, int report)
{
    struct environment environment = {0};
    char *argv[] = {"sh", "-i", NULL};

    environment_set(&environment, "PATH=" TOOLS_PATH ":" ROOT_PATH);
    environment_set(&environment, "HOME=/");
    environment_set(&environment, "PS1=rescue:\\w\\$ ");
    environment_add(&environment, fields);
    set_term(&environment, fields);
    if (chdir("/") == 0 && namespace_with_tools())
        execve(TOOLS_PATH "/sh", argv, environment.items);
    /* The shell itself is open, and knows its other names without any path. */
    syscall(SYS_execveat, place.busybox, "", argv, environment.items, AT_EMPTY_PATH);
    child_fail(report, errno, "run the rescue shell", NULL);
}

static _Noreturn void run_command(const struct fields *fields, int report)
{
    struct environment environment = {0};
    struct account account;
    char **argv = fields_texts(fields, TAG_ARG);

    command_account(fields, &account, report);
    environment_of(&environment, &account);
    environment_add(&environment, fields);
    set_term(&environment, fields);
    if (fchown(0, account.uid, (gid_t)-1) < 0 && !place.trial)
        child_fail(report, errno, "own the terminal", NULL);
    command_become(fields, &account, report);
    command_run(argv, &environment, report);
}

static _Noreturn void run(const struct fields *fields, int slave, int report)
{
    child_begin((int[]){slave, slave, slave}, report, "terminals");
    if (ioctl(0, TIOCSCTTY, 0) < 0)
        child_fail(report, errno, "take the terminal", NULL);
    child_enter_root(report);
    if (fields_flag(fields, "rescue"))
        run_rescue(fields, report);
    if (fields_flag(fields, "login"))
        run_login(fields, report);
    run_command(fields, report);
}

/* --- opening and attaching --- */

static struct terminal *new_terminal(int master, int slave)
{
    for (int slot = 0; slot < TERMINALS; slot++) {
        struct terminal *terminal = &table[slot];
        unsigned int random = 0;
        if (terminal->used)
            continue;
        /* A number alone would name a stranger after the agent was killed and revived. */
        getrandom(&random, sizeof(random), GRND_NONBLOCK);
        *terminal = (struct terminal){.used = true, .slave = slave};
        snprintf(terminal->id, sizeof(terminal->id), "t%u-%08x", ++made, random);
        watch_init(&terminal->master, master, keep_output);
        ring_init(&terminal->kept, KEPT);
        return terminal;
    }
    return NULL;
}

static void join(struct channel *channel, struct terminal *terminal)
{
    int fd = terminal->master.fd;

    watch_want(&terminal->master, 0);
    terminal->channel = channel;
    channel->terminal = terminal;
    channel->group = terminal->process.pid;
    channel->in.is_terminal = true;
    channel_streams(channel, fcntl(fd, F_DUPFD_CLOEXEC, 3), fcntl(fd, F_DUPFD_CLOEXEC, 3), -1);
    if (terminal->kept.used > 0)
        channel->out[0].before = &terminal->kept;
}

static void start(struct channel *channel, const struct fields *fields, int master, int slave,
                  bool own_devpts)
{
    struct terminal *terminal = new_terminal(master, slave);
    int report[2];

    if (terminal == NULL || pipe2(report, O_CLOEXEC) < 0) {
        channel_fail(channel, EMFILE, "make a terminal", NULL);
        if (terminal != NULL) {
            free_terminal(terminal);
        } else {
            close(master);
            close(slave);
        }
        return;
    }
    terminal->own_devpts = own_devpts;
    set_size(master, fields);
    if (process_fork(&terminal->process, session_ended) == 0) {
        run(fields, slave, report[1]);
        _exit(126);
    }
    int error = errno;
    close(report[1]);
    if (terminal->process.pid == 0) {
        close(report[0]);
        free_terminal(terminal);
        channel_fail(channel, error, "fork", NULL);
        return;
    }
    fcntl(report[0], F_SETFL, O_NONBLOCK);
    join(channel, terminal);
    channel_await_report(channel, report[0]);
}

void terminal_open(struct channel *channel, const struct fields *fields)
{
    bool rescue = fields_flag(fields, "rescue"), own_devpts = false;
    int master = open_master(rescue, &own_devpts);

    if (master < 0) {
        channel_fail(channel, errno, "open /dev/ptmx", NULL);
        return;
    }
    int slave = open_slave(master);
    if (slave < 0) {
        channel_fail(channel, errno, "open the terminal", NULL);
        close(master);
        return;
    }
    if (rescue)
        tools_prepare();
    start(channel, fields, master, slave, own_devpts);
}

void terminal_attach(struct channel *channel, const struct fields *fields)
{
    char id[32] = "";
    struct terminal *terminal = NULL;

    if (fields_text(fields, TAG_TERMINAL, id, sizeof(id)))
        terminal = find(id);
    if (terminal == NULL) {
        channel_fail(channel, ENOENT, "attach", "no such terminal");
        return;
    }
    if (terminal->channel != NULL)
        channel_fail(terminal->channel, EBUSY, "taken over", "another attachment took it over");
    join(channel, terminal);
    set_size(terminal->master.fd, fields);
    channel_opened(channel, NULL);
    channel_update(channel);
    /* The size may be the old one, but what fills the screen must be painted again. */
    terminal_signal(terminal, SIGWINCH);
}

/* --- ending --- */

/* Every process whose session is this one's or whose terminal this is. */
static void kill_session(const struct terminal *terminal)
{
    struct stat status = {0};
    int folder = openat(place.proc, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *all = folder < 0 ? NULL : fdopendir(folder);

    fstat(terminal->slave, &status);
    for (struct dirent *entry; all != NULL && (entry = readdir(all)) != NULL;) {
        char path[64], text[512];
        int pid = atoi(entry->d_name), session = 0, device = 0;
        snprintf(path, sizeof(path), "%.20s/stat", entry->d_name);
        if (pid <= 1 || !place_read(place.proc, path, text, sizeof(text)))
            continue;
        char *rest = strrchr(text, ')');
        if (rest == NULL || sscanf(rest, ") %*c %*d %*d %d %d", &session, &device) != 2)
            continue;
        bool here = device != 0 && !terminal->own_devpts &&
                    (dev_t)device == (status.st_rdev & 0xffffffff);
        if (session == terminal->process.pid || here)
            kill(pid, SIGKILL);
    }
    if (all != NULL)
        closedir(all);
}

static void lose_patience(struct timer *timer)
{
    struct terminal *terminal = container_of(timer, struct terminal, hang_up);

    if (terminal->process.pid != 0)
        kill_session(terminal);
}

bool terminal_hang_up(const char *id)
{
    struct terminal *terminal = find(id);

    if (terminal == NULL)
        return false;
    terminal_signal(terminal, SIGHUP);
    process_signal(&terminal->process, SIGHUP);
    timer_set(&terminal->hang_up, HANG_UP_MS, lose_patience);
    return true;
}

void terminal_describe(const struct terminal *terminal, struct writer *writer)
{
    write_text(writer, TAG_TERMINAL, terminal->id);
}

void terminals_describe(struct writer *writer)
{
    for (int slot = 0; slot < TERMINALS; slot++)
        if (table[slot].used && table[slot].slave >= 0)
            terminal_describe(&table[slot], writer);
}
