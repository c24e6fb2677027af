/* SPDX-License-Identifier: Apache-2.0 */
#include "agent.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "ask.h"
#include "conversation.h"
#include "link.h"
#include "loop.h"
#include "place.h"
#include "port.h"
#include "process.h"

/* From <linux/sched.h>: children are ordinary again. */
#ifndef SCHED_RESET_ON_FORK
#define SCHED_RESET_ON_FORK 0x40000000
#endif

static struct watch init_started = {.fd = -1};

/* Held for the agent's life; its twin, started by the real init, waits for it. */
static int lock = -1;

static void on_init_started(struct watch *watch, uint32_t events)
{
    int64_t time;

    (void)events;
    if (read(watch->fd, &time, sizeof(time)) == sizeof(time))
        milestone("init", time);
    watch_close(watch);
}

/* A fork bomb or a busy machine must not keep the agent from answering, nor the OOM killer. */
static void outlive_the_others(void)
{
    struct sched_param priority = {.sched_priority = 1};

    place_write(place.proc, "self/oom_score_adj", "-1000");
    /* musl's wrapper only says ENOSYS. */
    syscall(SYS_sched_setscheduler, 0, SCHED_RR | SCHED_RESET_ON_FORK, &priority);
}

static void take_lock(void)
{
    if (place.home < 0)
        return;
    lock = openat(place.home, "lock", O_RDONLY | O_CLOEXEC);
    if (lock >= 0)
        flock(lock, LOCK_EX | LOCK_NB); /* The port itself admits only one of us, too. */
}

/* Descriptors 0 to 2 stay taken, or a child's own would be put in the place of its streams. */
static void fill_standard_streams(void)
{
    int fd;

    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= 2);
    if (fd > 2)
        close(fd);
}

static void begin(void)
{
    fill_standard_streams();
    prctl(PR_SET_NAME, "bugbox-lifeline");
    if (!loop_init() || !process_init())
        exit(1);
    place_open();
    conversation_init();
}

void agent_run(const char *milestones, int init_pipe)
{
    begin();
    outlive_the_others();
    take_lock();
    ask_init();
    milestones_parse(milestones);
    if (init_pipe >= 0) {
        fcntl(init_pipe, F_SETFL, O_NONBLOCK);
        fcntl(init_pipe, F_SETFD, FD_CLOEXEC);
        watch_init(&init_started, init_pipe, on_init_started);
        watch_want(&init_started, EPOLLIN);
    }
    port_search();
    loop_run(link_work);
}

int agent_test(int argc, char **argv)
{
    const char *where = argc > 2 ? argv[2] : NULL, *root = "/";

    if (argc == 5 && strcmp(argv[3], "--root") == 0)
        root = argv[4];
    else if (argc != 3)
        return 2;
    place.trial = true;
    /* What a script mounts in a trial must not show up on the system that runs the test. */
    if (geteuid() == 0 &&
        (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0))
        perror("bugbox: a mount namespace for the test");
    place.root = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (place.root < 0) {
        perror(root);
        return 1;
    }
    begin();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    ask_init();
    milestones_parse("lifeline=1,modules=2,root=3,init=4");
    if (port_use_socket(where) < 0) {
        perror(where);
        return 1;
    }
    loop_run(link_work);
}
