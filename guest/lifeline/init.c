/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each step either works or ends the boot with one line on the console that names it: the host
 * reads that line and need not wait for a time-out.
 */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "agent.h"
#include "arguments.h"
#include "loop.h"
#include "modules.h"
#include "mounts.h"
#include "place.h"
#include "revive.h"
#include "root.h"

#define ROOT "/newroot"
#define HOME ROOT "/run/bugbox"

enum { PRINT_MS = 50 };

static struct arguments arguments;
static char milestones[160];

static void say(const char *text)
{
    int console = open("/dev/console", O_WRONLY | O_NOCTTY | O_CLOEXEC);

    dprintf(console >= 0 ? console : 2, "bugbox: %s\n", text);
    if (console >= 0)
        close(console);
}

static _Noreturn void fail(const char *step)
{
    char line[256];

    snprintf(line, sizeof(line), "boot failed: %s: %s", step, strerror(errno));
    say(line);
    usleep(PRINT_MS * 1000);
    reboot(RB_AUTOBOOT);
    for (;;)
        pause();
}

static void check(bool done, const char *step)
{
    if (!done)
        fail(step);
    if (arguments.debug)
        say(step);
}

static void passed(const char *name)
{
    size_t used = strlen(milestones);

    snprintf(milestones + used, sizeof(milestones) - used, "%s%s=%lld", used > 0 ? "," : "", name,
             (long long)now_ns());
}

static void use_console(void)
{
    int console = open("/dev/console", O_RDWR | O_NOCTTY);

    for (int number = 0; console >= 0 && number < 3; number++)
        dup2(console, number);
    if (console > 2)
        close(console);
}

static void first_mounts(void)
{
    check(mount_on("proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL), "mount /proc");
    check(mount_on("sysfs", "/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL), "mount /sys");
}

static void bring_modules(void)
{
    const char *failed = modules_load("/modules", "list");
    char step[128];

    if (failed == NULL && arguments.vsock)
        failed = modules_load("/modules", "vsock");
    snprintf(step, sizeof(step), "load module %s", failed != NULL ? failed : "");
    check(failed == NULL, failed != NULL ? step : "load modules");
}

static void bring_root(void)
{
    char step[128];

    if (arguments.root[0] == '\0') {
        errno = EINVAL;
        fail("read bugbox.root from the kernel's arguments");
    }
    mkdir(ROOT, 0755);
    if (arguments.overlay[0] != '\0') {
        const char *failed = root_join(arguments.overlay, ROOT);
        snprintf(step, sizeof(step), "join the root: %.64s", failed != NULL ? failed : "");
        check(failed == NULL, step);
        return;
    }
    snprintf(step, sizeof(step), "wait for %.64s", arguments.root);
    check(root_wait(arguments.root), step);
    snprintf(step, sizeof(step), "mount %.64s", arguments.root);
    check(mount(arguments.root, ROOT, arguments.type, arguments.alone ? MS_RDONLY : 0, NULL) == 0,
          step);
    if (arguments.alone || root_grow(arguments.root, ROOT))
        return;
    snprintf(step, sizeof(step), "the disk is larger, but its filesystem could not grow: %s",
             strerror(errno));
    say(step);
}

static bool copy(const char *from, int folder, const char *name, unsigned int mode)
{
    int fd = open(from, O_RDONLY | O_CLOEXEC);
    bool copied = fd >= 0 && copy_file(fd, folder, name, mode);

    if (fd >= 0)
        close(fd);
    return copied;
}

/*
 * A mount of its own which the guest sees read-only: `rm -rf /` and `chmod -R 000 /` end there, and
 * a full /run is not ours. The agent makes itself a writable view of it.
 */
static void make_home(void)
{
    check(mount_on("tmpfs", HOME, MS_NOSUID, "mode=0755,size=16m"), "mount /run/bugbox");
    int home = open(HOME, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    check(home >= 0, "open /run/bugbox");
    check(mkdirat(home, "bin", 0755) == 0 && mkdirat(home, "tools", 0755) == 0 &&
              mkdirat(home, "script", 0755) == 0,
          "make folders in /run/bugbox");
    check(copy("/init", home, "lifeline", 0755), "copy the lifeline");
    check(copy("/tools/busybox", home, "tools/busybox", 0755), "copy the tools");
    if (access("/client/bugbox", F_OK) == 0)
        check(copy("/client/bugbox", home, "bin/bugbox", 0755), "copy the client");
    check(mknodat(home, "null", S_IFCHR | 0666, makedev(1, 3)) == 0, "make a null device");
    int lock = openat(home, "lock", O_RDONLY | O_CREAT | O_CLOEXEC, 0600);
    check(lock >= 0, "make the lock");
    close(lock);
    close(home);
    check(mount_make_read_only(HOME), "make /run/bugbox read-only");
}

static void make_run(void)
{
    check(mount_on("tmpfs", ROOT "/run", MS_NOSUID | MS_NODEV | MS_STRICTATIME,
                   "mode=0755,size=20%,nr_inodes=800k"),
          "mount /run");
    if (!arguments.alone) {
        int run = open(ROOT "/run", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        check(run >= 0 && revive_write_unit(run), "write the lifeline's unit");
        close(run);
    }
    make_home();
}

/* The kernel modules and copies: their memory is the guest's. */
static void free_memory(void)
{
    modules_remove("/modules", "list");
    modules_remove("/modules", "vsock");
    unlink("/tools/busybox");
    unlink("/client/bugbox");
}

/* The build machine: no other init. Its commands need what an init would have mounted. */
static _Noreturn void stay(void)
{
    check(mount("/dev", ROOT "/dev", NULL, MS_MOVE, NULL) == 0, "move /dev");
    check(mount("/proc", ROOT "/proc", NULL, MS_MOVE, NULL) == 0, "move /proc");
    check(mount("/sys", ROOT "/sys", NULL, MS_MOVE, NULL) == 0, "move /sys");
    mkdir(ROOT "/dev/pts", 0755);
    mkdir(ROOT "/dev/shm", 01777);
    check(mount_on("devpts", ROOT "/dev/pts", MS_NOSUID | MS_NOEXEC,
                   "mode=0620,gid=5,ptmxmode=0666"),
          "mount /dev/pts");
    check(mount_on("tmpfs", ROOT "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777"), "mount /dev/shm");
    check(mount_on("tmpfs", ROOT "/tmp", MS_NOSUID | MS_NODEV, "mode=1777"), "mount /tmp");
    /* So that what a command mounts is there for the next one. */
    check(mount(NULL, ROOT, NULL, MS_REC | MS_SHARED, NULL) == 0, "share the mounts");
    place.root = open(ROOT, O_PATH | O_DIRECTORY | O_CLOEXEC);
    place.alone = true;
    check(place.root >= 0, "open the root");
    free_memory();
    passed("init");
    agent_run(milestones, -1);
}

/* The agent is another program run, so that `ps` shows its own name, and nothing else. */
static void start_agent(int started[2])
{
    int root = open(ROOT, O_PATH | O_DIRECTORY);

    check(root >= 0, "open the root");
    check(pipe2(started, O_CLOEXEC) == 0, "make a pipe");
    pid_t pid = fork();
    check(pid >= 0, "fork the lifeline");
    if (pid > 0) {
        close(root);
        close(started[0]);
        return;
    }
    char root_text[16], pipe_text[16];
    fcntl(started[0], F_SETFD, 0);
    snprintf(root_text, sizeof(root_text), "%d", root);
    snprintf(pipe_text, sizeof(pipe_text), "%d", started[0]);
    setenv("root", root_text, 1);
    setenv("started", pipe_text, 1);
    setenv("milestones", milestones, 1);
    setsid();
    execl("/init", "@bugbox-lifeline", "--agent", (char *)NULL);
    say("the lifeline cannot be run again");
    _exit(1);
}

static void enter_root(void)
{
    static const char *const moved[] = {"/dev", "/proc", "/sys"};

    for (size_t i = 0; i < sizeof(moved) / sizeof(*moved); i++) {
        char to[32];
        snprintf(to, sizeof(to), ROOT "%s", moved[i]);
        check(mount(moved[i], to, NULL, MS_MOVE, NULL) == 0, to + strlen(ROOT));
    }
    check(chdir(ROOT) == 0 && mount(".", "/", NULL, MS_MOVE, NULL) == 0 && chroot(".") == 0 &&
              chdir("/") == 0,
          "enter the root");
}

static _Noreturn void hand_over(int started)
{
    char *argv[] = {arguments.init, NULL}, *env[] = {"HOME=/", "TERM=linux", NULL};
    char step[128];

    use_console();
    umask(022); /* as the kernel would start it; systemd sets its own, others do not */
    int64_t now = now_ns();
    if (write(started, &now, sizeof(now)) < 0)
        say("the lifeline has ended");
    execve(argv[0], argv, env);
    snprintf(step, sizeof(step), "run %.100s", argv[0]);
    fail(step);
}

void init_run(void)
{
    int started[2];

    umask(0);
    if (!mount_on("devtmpfs", "/dev", MS_NOSUID, "mode=0755"))
        fail("mount /dev");
    use_console();
    passed("lifeline");
    first_mounts();
    check(arguments_read(&arguments), "read the kernel's arguments");
    bring_modules();
    passed("modules");
    bring_root();
    make_run();
    passed("root");
    if (arguments.alone)
        stay();
    start_agent(started);
    free_memory();
    enter_root();
    hand_over(started[1]);
}
