/* SPDX-License-Identifier: Apache-2.0 */
#include "tools.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mounts.h"
#include "place.h"

/* The applets' names as busybox prints them, one a line. */
static char applets[8192];

static _Noreturn void list_applets(int out)
{
    char *argv[] = {"busybox", "--list", NULL}, *env[] = {NULL};

    dup2(out, 1);
    syscall(SYS_execveat, place.busybox, "", argv, env, AT_EMPTY_PATH);
    _exit(127);
}

/* Waits for busybox to print: a few milliseconds, once in the agent's life. */
static void read_applets(void)
{
    int ends[2];
    size_t held = 0;
    ssize_t count;

    if (pipe2(ends, O_CLOEXEC) < 0)
        return;
    pid_t pid = fork();
    if (pid == 0)
        list_applets(ends[1]);
    close(ends[1]);
    while (pid > 0 && held < sizeof(applets) - 1 &&
           (count = read(ends[0], applets + held, sizeof(applets) - 1 - held)) > 0)
        held += (size_t)count;
    applets[held] = '\0';
    close(ends[0]);
    while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
}

static void link_applets(int folder)
{
    for (const char *at = applets; *at != '\0';) {
        char name[64];
        size_t length = strcspn(at, "\n");
        if (length > 0 && length < sizeof(name)) {
            memcpy(name, at, length);
            name[length] = '\0';
            symlinkat("busybox", folder, name);
        }
        at += length + (at[length] == '\n');
    }
}

void tools_prepare(void)
{
    if (place.busybox < 0 || applets[0] != '\0')
        return;
    read_applets();
    int folder = openat(place.home, "tools", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        return;
    link_applets(folder);
    close(folder);
}

bool namespace_private(void)
{
    return unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
}

/* Whether /run/bugbox is still what we put there, and not gone or somebody's imitation. */
static bool home_is_ours(void)
{
    struct stat seen, held;

    return stat(TOOLS_PATH "/busybox", &seen) == 0 && fstat(place.busybox, &held) == 0 &&
           seen.st_dev == held.st_dev && seen.st_ino == held.st_ino &&
           access(TOOLS_PATH "/sh", X_OK) == 0 && access(SCRIPT_PATH, F_OK) == 0;
}

/* The nearest folder that can carry a mount: /run may be full, and then nothing can be made. */
static const char *mount_point(void)
{
    struct stat status;

    mkdir("/run", 0755);
    mkdir(HOME_PATH, 0755);
    return stat(HOME_PATH, &status) == 0 && S_ISDIR(status.st_mode) ? HOME_PATH : "/run";
}

static bool rebuild_home(void)
{
    const char *point = mount_point();

    /* The new mount must not appear in the guest, and it would where its parent is shared. */
    if (mount(NULL, "/run", NULL, MS_PRIVATE, NULL) < 0)
        mount(NULL, "/", NULL, MS_PRIVATE, NULL);
    if (mount("bugbox", point, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755") < 0)
        return false;
    mkdir(HOME_PATH, 0755);
    mkdir(TOOLS_PATH, 0755);
    mkdir(SCRIPT_PATH, 0755);
    int folder = open(TOOLS_PATH, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0 || !copy_file(place.busybox, folder, "busybox", 0755))
        return false;
    link_applets(folder);
    close(folder);
    return true;
}

/*
 * Only /run/bugbox is made private. Everything else keeps its ties: what a script mounts or
 * unmounts is mounted or unmounted for the whole guest, as its author expects.
 */
bool namespace_with_tools(void)
{
    if (place.busybox < 0) {
        errno = ENOENT;
        return false;
    }
    if (unshare(CLONE_NEWNS) < 0)
        return false;
    if (home_is_ours())
        mount(NULL, HOME_PATH, NULL, MS_PRIVATE, NULL);
    else if (!rebuild_home())
        return false;
    return mount("bugbox", SCRIPT_PATH, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755") == 0;
}

/* Slaves, so that what logind mounts for the session is seen here too. */
void namespace_without_records(void)
{
    static const char *const records[] = {"/var/log/lastlog", "/var/log/wtmp", "/var/log/btmp"};

    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
        return;
    for (size_t i = 0; i < sizeof(records) / sizeof(*records); i++)
        mount(HOME_PATH "/null", records[i], NULL, MS_BIND, NULL);
}

bool script_name_is_good(const char *name)
{
    return *name != '\0' && *name != '.' && *name != '-' && strlen(name) <= 100 &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") ==
               strlen(name);
}

static bool write_all(int fd, const void *bytes, size_t size)
{
    for (const char *at = bytes; size > 0;) {
        ssize_t count = write(fd, at, size);
        if (count < 0 && errno != EINTR)
            return false;
        if (count > 0) {
            at += count;
            size -= (size_t)count;
        }
    }
    return true;
}

bool script_place(const char *name, const uint8_t *text, size_t size, const struct account *owner,
                  bool vanishing)
{
    char path[160], first[200] = "";

    snprintf(path, sizeof(path), SCRIPT_PATH "/%s", name);
    /* What a fault leaves running keeps this namespace, and with it the text of the fault. So it
     * removes itself, on its first line for the line numbers' sake. */
    if (vanishing) {
        snprintf(first, sizeof(first), "rm -f %s; ", path);
        if (chown(SCRIPT_PATH, owner->uid, owner->gid) < 0)
            return false;
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0400);
    if (fd < 0)
        return false;
    bool placed = write_all(fd, first, strlen(first)) && write_all(fd, text, size) &&
                  fchown(fd, owner->uid, owner->gid) == 0;
    int error = errno;
    close(fd);
    errno = error;
    return placed;
}
