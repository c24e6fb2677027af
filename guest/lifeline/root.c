/* SPDX-License-Identifier: Apache-2.0 */
#include "root.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "frame.h"

enum {
    WAIT_MS = 30000,
    LOOK_EVERY_MS = 2,
    /* Where ext4 keeps what, from its superblock's documentation in the kernel tree. */
    SUPERBLOCK = 1024,
    BLOCKS_LOW = 4,
    LOG_BLOCK = 24,
    MAGIC = 56,
    INCOMPATIBLE = 96,
    BLOCKS_HIGH = 336,
    EXT4_MAGIC = 0xEF53,
    HAS_64BIT = 0x80,
};

/* From fs/ext4/ext4.h */
#define EXT4_IOC_RESIZE_FS _IOW('f', 16, uint64_t)

bool root_wait(const char *device)
{
    struct stat status;

    for (int waited = 0; waited < WAIT_MS; waited += LOOK_EVERY_MS) {
        if (stat(device, &status) == 0) {
            if (S_ISBLK(status.st_mode))
                return true;
            errno = ENOTBLK;
            return false;
        }
        usleep(LOOK_EVERY_MS * 1000);
    }
    return false;
}

/* Blocks the filesystem has and could have; false when it is no ext4. */
static bool sizes(const char *device, uint64_t *now, uint64_t *most)
{
    uint8_t super[512];
    uint64_t bytes = 0;
    int fd = open(device, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return false;
    bool read = pread(fd, super, sizeof(super), SUPERBLOCK) == sizeof(super) &&
                ioctl(fd, BLKGETSIZE64, &bytes) == 0;
    close(fd);
    if (!read || (super[MAGIC] | super[MAGIC + 1] << 8) != EXT4_MAGIC || super[LOG_BLOCK] > 6)
        return false;
    *now = get32(super + BLOCKS_LOW);
    if (get32(super + INCOMPATIBLE) & HAS_64BIT)
        *now |= (uint64_t)get32(super + BLOCKS_HIGH) << 32;
    *most = bytes >> (10 + super[LOG_BLOCK]);
    return true;
}

bool root_grow(const char *device, const char *mounted)
{
    uint64_t now, most;

    if (!sizes(device, &now, &most) || most <= now)
        return true;
    int fd = open(mounted, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return false;
    int result = ioctl(fd, EXT4_IOC_RESIZE_FS, &most);
    int error = errno;
    close(fd);
    errno = error;
    return result == 0;
}
