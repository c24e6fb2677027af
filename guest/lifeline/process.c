/* SPDX-License-Identifier: Apache-2.0 */
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cgroups.h"
#include "loop.h"
#include "place.h"

/* What systemd gives its services: few by default, many for those that ask. */
static const struct rlimit child_files = {.rlim_cur = 1024, .rlim_max = 524288};
static const struct rlimit agent_files = {.rlim_cur = 4096, .rlim_max = 524288};

static struct watch signals = {.fd = -1};
static struct process *running;

static struct process **find(pid_t pid)
{
    struct process **at = &running;

    while (*at != NULL && (*at)->pid != pid)
        at = &(*at)->next;
    return at;
}

static void reap_one(pid_t pid)
{
    struct process **at = find(pid), *process = *at;
    int status;

    /* Before its number is free for another: until it is reaped, the group is surely its own. */
    if (process != NULL && process->ends_group)
        kill(-pid, SIGKILL);
    if (waitpid(pid, &status, WNOHANG) != pid || process == NULL)
        return;
    *at = process->next;
    process->pid = 0;
    process->ended(process, status);
}

static void reap(struct watch *watch, uint32_t events)
{
    struct signalfd_siginfo info;

    (void)events;
    while (read(watch->fd, &info, sizeof(info)) == sizeof(info))
        ;
    /* All of them: as process 1 of the build machine we inherit every orphan. */
    for (;;) {
        siginfo_t child = {0};
        if (waitid(P_ALL, 0, &child, WEXITED | WNOHANG | WNOWAIT) < 0 || child.si_pid == 0)
            return;
        reap_one(child.si_pid);
    }
}

static void ignore_what_ends_agents(void)
{
    static const int ignored[] = {SIGPIPE, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2,
                                  SIGALRM, SIGTSTP, SIGTTIN, SIGTTOU, SIGIO, SIGPWR};

    for (size_t i = 0; i < sizeof(ignored) / sizeof(*ignored); i++)
        signal(ignored[i], SIG_IGN);
}

bool process_init(void)
{
    sigset_t children;

    ignore_what_ends_agents();
    setrlimit(RLIMIT_NOFILE, &agent_files);
    sigemptyset(&children);
    sigaddset(&children, SIGCHLD);
    if (sigprocmask(SIG_SETMASK, &children, NULL) < 0)
        return false;
    watch_init(&signals, signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK), reap);
    watch_want(&signals, EPOLLIN);
    return signals.fd >= 0;
}

pid_t process_fork(struct process *process, void (*on_end)(struct process *, int))
{
    pid_t pid = fork();

    if (pid > 0) {
        *process = (struct process){.pid = pid, .ended = on_end, .next = running};
        running = process;
    }
    return pid;
}

void process_forget(struct process *process)
{
    for (struct process **at = &running; *at != NULL; at = &(*at)->next)
        if (*at == process) {
            *at = process->next;
            break;
        }
    process->pid = 0;
}

void process_signal(const struct process *process, int signal)
{
    if (process->pid <= 0)
        return;
    if (kill(-process->pid, signal) < 0)
        kill(process->pid, signal);
}

static void ordinary_signals(void)
{
    sigset_t none;

    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static int compare(const void *left, const void *right)
{
    return *(const int *)left - *(const int *)right;
}

/* Another command's pipe, held here, would keep that command from ever seeing its end. */
static void close_all_but(int report)
{
    int kept[] = {2, report, place.root, place.home, place.busybox, place.proc,
                  place.sys, place.cgroup, place.nodes};
    size_t count = sizeof(kept) / sizeof(*kept);

    qsort(kept, count, sizeof(*kept), compare);
    for (size_t i = 0; i < count; i++) {
        unsigned int from = (unsigned int)kept[i] + 1;
        unsigned int to = i + 1 < count ? (unsigned int)kept[i + 1] - 1 : ~0u;
        if (kept[i] >= 2 && from <= to)
            syscall(SYS_close_range, from, to, 0);
    }
}

void child_begin(const int streams[3], int report, const char *cgroup)
{
    setsid();
    for (int number = 0; number < 3; number++)
        dup2(streams[number], number);
    close_all_but(report);
    ordinary_signals();
    umask(022);
    setrlimit(RLIMIT_NOFILE, &child_files);
    if (!place.trial) {
        place_write(place.proc, "self/oom_score_adj", "0");
        cgroup_enter(cgroup);
    }
}

void child_enter_root(int report)
{
    if (fchdir(place.root) < 0)
        child_fail(report, errno, "enter the root", NULL);
    /* A test by an ordinary user has the system's own root, where there is nothing to change. */
    if (chroot(".") < 0 && !(place.trial && geteuid() != 0))
        child_fail(report, errno, "enter the root", NULL);
}

static void send_report(int report, const struct report *what)
{
    while (write(report, what, sizeof(*what)) < 0 && errno == EINTR)
        ;
}

void child_fail(int report, int error, const char *step, const char *detail)
{
    struct report what = {.error = error != 0 ? error : EIO};

    snprintf(what.step, sizeof(what.step), "%s", step);
    snprintf(what.message, sizeof(what.message), "%s%s%s", detail != NULL ? detail : "",
             detail != NULL ? ": " : "", strerror(what.error));
    send_report(report, &what);
    _exit(126);
}

void child_succeed(int report, int64_t size, int64_t mode)
{
    struct report what = {.size = size, .mode = mode};

    send_report(report, &what);
}
