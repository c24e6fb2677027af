/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fsopen and fsmount give a mount that hangs in no tree, held by a descriptor alone. The learner
 * can delete every node in /dev (devtmpfs is one and the same in every mount), unmount /proc, or
 * wreck the root: what the agent opened this way stays.
 */
#include "place.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "mounts.h"

/* From <linux/openat2.h>, which musl does not bring. */
enum { RESOLVE_IN_ROOT = 0x10, RESOLVE_NO_MAGICLINKS = 0x02 };

struct open_how {
    uint64_t flags, mode, resolve;
};

struct place place = {
    .root = -1,
    .home = -1,
    .busybox = -1,
    .proc = -1,
    .sys = -1,
    .cgroup = -1,
    .nodes = -1,
    .random = -1,
    .started = "boot",
};

/* Where a private mount is refused (a test without privileges), the system's own will do. */
static int private_mount(const char *type, const char *otherwise)
{
    int fd = mount_detached(type);

    if (fd < 0 && otherwise != NULL)
        fd = open(otherwise, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd;
}

void place_open(void)
{
    place.proc = private_mount("proc", "/proc");
    place.sys = private_mount("sysfs", "/sys");
    if (!place.trial) {
        place.nodes = mount_detached("tmpfs");
        place.cgroup = mount_detached("cgroup2");
        place.random = place_device("urandom", S_IFCHR, 1, 9, O_WRONLY);
    }
    if (place.home < 0)
        place.home = place.trial ? openat(place.root, "run/bugbox", O_RDONLY | O_CLOEXEC)
                                 : mount_writable_view(place.root, "run/bugbox");
    if (place.home >= 0)
        place.busybox = openat(place.home, "tools/busybox", O_RDONLY | O_CLOEXEC);
}

int place_guest(const char *path, int flags)
{
    struct open_how how = {
        .flags = (uint64_t)(flags | O_CLOEXEC),
        .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
    };

    return (int)syscall(SYS_openat2, place.root, path, &how, sizeof(how));
}

int place_device(const char *name, unsigned int type, unsigned int major, unsigned int minor,
                 int flags)
{
    unlinkat(place.nodes, name, 0);
    if (mknodat(place.nodes, name, type | 0600, makedev(major, minor)) < 0)
        return -1;
    return openat(place.nodes, name, flags | O_CLOEXEC);
}

bool place_read(int folder, const char *path, char *text, size_t size)
{
    int fd = openat(folder, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t count = read(fd, text, size - 1);
    close(fd);
    if (count < 0)
        return false;
    if (count > 0 && text[count - 1] == '\n')
        count--;
    text[count] = '\0';
    return true;
}

bool place_write(int folder, const char *path, const char *text)
{
    int fd = openat(folder, path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool written = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    int error = errno;
    close(fd);
    errno = error;
    return written;
}
