/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent does all of it by itself. In a clone nothing of the guest is translated yet: a child's
 * fork, its cgroup and its end take five times as long there as what it would be made for. No file
 * is named through the agent's own root, so no link of the guest's leads out of the guest.
 */
#include "identity.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "place.h"

/* From <linux/random.h>, which musl does not bring. */
#define RNDADDENTROPY _IOW('R', 0x03, int[2])
#define RNDRESEEDCRNG _IO('R', 0x07)

int identity_entropy(const uint8_t *seed)
{
    struct {
        int bits, size;
        uint8_t seed[SEED];
    } pool = {.bits = SEED * 8, .size = SEED};

    if (place.random < 0)
        return ENODEV;
    memcpy(pool.seed, seed, SEED);
    return ioctl(place.random, RNDADDENTROPY, &pool) < 0 || ioctl(place.random, RNDRESEEDCRNG) < 0
               ? errno
               : 0;
}

/* A text as long as the one before it takes its place: a full disk cannot refuse that. */
static bool write_over(int folder, const char *name, const char *text, size_t length)
{
    int fd = openat(folder, name, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct stat old;

    if (fd < 0)
        return false;
    bool written = fstat(fd, &old) == 0 && S_ISREG(old.st_mode) && old.st_nlink == 1 &&
                   old.st_size == (off_t)length && pwrite(fd, text, length, 0) == (ssize_t)length;
    close(fd);
    return written;
}

/* Through a new file, so that a full disk leaves the old one. */
static int replace(int folder, const char *name, const char *text, size_t length)
{
    char temporary[64];

    snprintf(temporary, sizeof(temporary), "%s.bugbox", name);
    unlinkat(folder, temporary, 0);
    int fd = openat(folder, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0)
        return errno;
    int error = fchmod(fd, 0644) < 0 || write(fd, text, length) != (ssize_t)length ? errno : 0;
    if (close(fd) < 0 && error == 0)
        error = errno;
    if (error == 0 && renameat(folder, temporary, folder, name) < 0)
        error = errno;
    if (error != 0)
        unlinkat(folder, temporary, 0);
    return error;
}

static int put_line(const char *name, const char *text)
{
    char line[80];
    size_t length = (size_t)snprintf(line, sizeof(line), "%s\n", text);
    int folder = place_guest("etc", O_RDONLY | O_DIRECTORY), error = 0;

    if (folder < 0)
        return errno;
    if (!write_over(folder, name, line, length))
        error = replace(folder, name, line, length);
    close(folder);
    return error;
}

static bool is_machine_id(const char *text)
{
    return strlen(text) == 32 && strspn(text, "0123456789abcdef") == 32;
}

/*
 * journalctl shows the journal of the folder that the machine-id names, and journald, which read
 * the id when it started, goes on writing into the old one: so both names lead to it.
 */
static void rename_journal(const char *old, const char *id)
{
    int folder = place_guest("run/log/journal", O_RDONLY | O_DIRECTORY);

    if (folder < 0)
        return;
    if (strcmp(old, id) != 0 && renameat(folder, old, folder, id) == 0 &&
        symlinkat(id, folder, old) < 0)
        renameat(folder, id, folder, old);
    close(folder);
}

static void read_machine_id(char *text, size_t size)
{
    int fd = place_guest("etc/machine-id", O_RDONLY | O_NONBLOCK);
    ssize_t count = fd < 0 ? 0 : read(fd, text, size - 1);

    text[count < 0 ? 0 : count] = '\0';
    text[strcspn(text, "\n")] = '\0';
    if (fd >= 0)
        close(fd);
}

static int set_machine_id(const char *id)
{
    char old[64];

    if (!is_machine_id(id))
        return EINVAL;
    read_machine_id(old, sizeof(old));
    int error = put_line("machine-id", id);
    if (error == 0 && is_machine_id(old))
        rename_journal(old, id);
    return error;
}

int identity_set(const struct fields *fields)
{
    char name[65], id[33];
    int error = 0;

    if (fields_text(fields, TAG_NAME, name, sizeof(name)))
        error = sethostname(name, strlen(name)) < 0 ? errno : put_line("hostname", name);
    if (error == 0 && fields_text(fields, TAG_DATA, id, sizeof(id)))
        error = set_machine_id(id);
    return error;
}
