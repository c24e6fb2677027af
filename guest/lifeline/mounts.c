/* SPDX-License-Identifier: Apache-2.0 */
#include "mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* From <linux/mount.h>, which musl does not bring. */
enum {
    NEW_FS_CLOEXEC = 1,
    NEW_MOUNT_CLOEXEC = 1,
    CONFIG_CREATE = 6,
    CLONE_TREE = 1,
    ATTRIBUTE_READ_ONLY = 1,
};

struct mount_attributes {
    uint64_t set, clear, propagation, userns_fd;
};

static int syscall_fd(long result)
{
    return (int)result;
}

int mount_detached(const char *type)
{
    int context = syscall_fd(syscall(SYS_fsopen, type, NEW_FS_CLOEXEC));
    if (context < 0)
        return -1;
    int fd = -1;
    if (syscall(SYS_fsconfig, context, CONFIG_CREATE, NULL, NULL, 0) == 0)
        fd = syscall_fd(syscall(SYS_fsmount, context, NEW_MOUNT_CLOEXEC, 0));
    int error = errno;
    close(context);
    errno = error;
    return fd;
}

int mount_writable_view(int folder, const char *path)
{
    struct mount_attributes change = {.clear = ATTRIBUTE_READ_ONLY};
    int fd = syscall_fd(syscall(SYS_open_tree, folder, path, CLONE_TREE | O_CLOEXEC));

    if (fd >= 0 &&
        syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH, &change, sizeof(change)) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

bool mount_on(const char *type, const char *path, unsigned long flags, const char *options)
{
    mkdir(path, 0755); /* It mostly exists; if it does not and cannot, the mount says so. */
    return mount(type, path, type, flags, options) == 0;
}

bool mount_make_read_only(const char *path)
{
    return mount(NULL, path, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID, NULL) == 0;
}

bool copy_file(int from, int folder, const char *name, unsigned int mode)
{
    int to = openat(folder, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (to < 0)
        return false;
    off_t at = 0;
    ssize_t count;
    do
        count = sendfile(to, from, &at, 1 << 20);
    while (count > 0 || (count < 0 && errno == EINTR));
    bool done = count == 0 && fchmod(to, mode) == 0;
    int error = errno;
    close(to);
    errno = error;
    return done;
}
