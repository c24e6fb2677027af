/* SPDX-License-Identifier: Apache-2.0 */
#include "root.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "frame.h"

enum {
    LOWER_MOST = 4,
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

static bool mount_drive(const char *device, const char *place, unsigned long flags)
{
    return root_wait(device) && (mkdir(place, 0755) == 0 || errno == EEXIST) &&
           mount(device, place, "ext4", flags, NULL) == 0;
}

/* The overlay holds its layers itself: nobody in the machine sees the places they were at. */
static void hide(int lower)
{
    char place[20];

    for (; lower > 0; lower--) {
        snprintf(place, sizeof(place), "/lower%d", lower);
        umount2(place, MNT_DETACH);
        rmdir(place);
    }
    umount2("/scratch", MNT_DETACH);
    rmdir("/scratch");
}

const char *root_join(const char *drives, const char *place)
{
    static char list[128], options[512];
    char below[LOWER_MOST * 12] = "", lower[20];
    int count = 0;

    snprintf(list, sizeof(list), "%s", drives);
    char *upper = strtok(list, ",");
    if (upper == NULL || !mount_drive(upper, "/scratch", 0))
        return upper != NULL ? upper : "no drive";
    for (char *drive; (drive = strtok(NULL, ",")) != NULL;) {
        if (count == LOWER_MOST) {
            errno = E2BIG;
            return drive;
        }
        snprintf(lower, sizeof(lower), "/lower%d", ++count);
        if (!mount_drive(drive, lower, MS_RDONLY))
            return drive;
        snprintf(below + strlen(below), sizeof(below) - strlen(below), "%s%s",
                 count > 1 ? ":" : "", lower);
    }
    if ((mkdir("/scratch/upper", 0755) != 0 && errno != EEXIST) ||
        (mkdir("/scratch/work", 0755) != 0 && errno != EEXIST))
        return "make its folders";
    /* redirect_dir: a directory of the base can be renamed as on any disk. xino: inode numbers
     * stay what they are, whichever drive a file is on. */
    snprintf(options, sizeof(options),
             "lowerdir=%s,upperdir=/scratch/upper,workdir=/scratch/work,redirect_dir=on,xino=on",
             below);
    if (mount("overlay", place, "overlay", 0, options) != 0)
        return "overlay";
    hide(count);
    return NULL;
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
