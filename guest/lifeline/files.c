/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files are touched in a child only: a filesystem of the guest may be frozen or full of traps, and
 * the agent must not wait on it.
 */
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "command.h"

enum { PIECE = 65536, PERMISSIONS = 07777 };

static void read_path(const struct fields *fields, char *path, int report)
{
    if (!fields_text(fields, TAG_PATH, path, PATH_MAX - 32) || *path == '\0')
        child_fail(report, EINVAL, "read the path", NULL);
}

static bool write_all(int fd, const char *bytes, size_t count)
{
    while (count > 0) {
        ssize_t written = write(fd, bytes, count);
        if (written < 0 && errno != EINTR)
            return false;
        if (written > 0) {
            bytes += written;
            count -= (size_t)written;
        }
    }
    return true;
}

static void make_parents(const char *path, int report)
{
    char folder[PATH_MAX];

    for (const char *at = strchr(path + 1, '/'); at != NULL; at = strchr(at + 1, '/')) {
        snprintf(folder, sizeof(folder), "%.*s", (int)(at - path), path);
        if (mkdir(folder, 0755) < 0 && errno != EEXIST)
            child_fail(report, errno, "make the folder", folder);
    }
}

static _Noreturn void undo(const char *temporary, int report, int error, const char *step,
                           const char *detail)
{
    unlink(temporary);
    child_fail(report, error, step, detail);
}

/* From stdin to the file, exactly `size` bytes. */
static void receive(int fd, int64_t size, const char *temporary, int report)
{
    static char bytes[PIECE];
    int64_t held = 0;
    ssize_t count;

    while ((count = read(0, bytes, sizeof(bytes))) != 0) {
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            undo(temporary, report, errno, "read the data", NULL);
        held += count;
        if (held > size)
            undo(temporary, report, EFBIG, "read the data", "more than was announced");
        if (!write_all(fd, bytes, (size_t)count))
            undo(temporary, report, errno, "write", temporary);
    }
    if (held < size)
        undo(temporary, report, EPIPE, "read the data", "it ended too early");
}

static void put_body(const struct fields *fields, int report)
{
    char path[PATH_MAX], temporary[PATH_MAX + 48];
    struct account owner;
    int64_t size = fields_number(fields, TAG_SIZE, -1);
    mode_t mode = (mode_t)fields_number(fields, TAG_MODE, 0644) & PERMISSIONS;

    child_enter_root(report);
    read_path(fields, path, report);
    command_account(fields, &owner, report);
    if (size < 0)
        child_fail(report, EINVAL, "read the size", NULL);
    if (fields_flag(fields, "parents"))
        make_parents(path, report);
    snprintf(temporary, sizeof(temporary), "%s.bugbox-%d", path, getpid());
    int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        child_fail(report, errno, "create", path);
    child_succeed(report, size, mode);
    receive(fd, size, temporary, report);
    if (geteuid() == 0 && fchown(fd, owner.uid, owner.gid) < 0)
        undo(temporary, report, errno, "change the owner", path);
    if (fchmod(fd, mode) < 0 || close(fd) < 0)
        undo(temporary, report, errno, "finish", path);
    if (rename(temporary, path) < 0)
        undo(temporary, report, errno, "rename to", path);
    _exit(0);
}

static void get_body(const struct fields *fields, int report)
{
    static char bytes[PIECE];
    char path[PATH_MAX];
    struct stat status;
    ssize_t count;

    child_enter_root(report);
    read_path(fields, path, report);
    /* Not blocking: a pipe without a writer must not hold us. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 || fstat(fd, &status) < 0)
        child_fail(report, errno, "open", path);
    if (!S_ISREG(status.st_mode))
        child_fail(report, S_ISDIR(status.st_mode) ? EISDIR : EINVAL, "open",
                   "not a regular file");
    child_succeed(report, status.st_size, status.st_mode & PERMISSIONS);
    while ((count = read(fd, bytes, sizeof(bytes))) > 0)
        if (!write_all(1, bytes, (size_t)count))
            child_fail(report, errno, "send", path);
    if (count < 0)
        child_fail(report, errno, "read", path);
    _exit(0);
}

void put_open(struct channel *channel, const struct fields *fields)
{
    channel->ends_itself = true;
    channel_spawn(channel, fields, "files", put_body);
}

void get_open(struct channel *channel, const struct fields *fields)
{
    channel_spawn(channel, fields, "files", get_body);
}
