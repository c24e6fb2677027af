/* SPDX-License-Identifier: Apache-2.0 */
#include "modules.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static char name[128];

static bool load(const char *folder)
{
    char path[256];

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    long result = syscall(SYS_finit_module, fd, "", 0);
    int error = errno;
    close(fd);
    errno = error;
    /* Already there, or for hardware that this machine does not have: both are fine. */
    return result == 0 || error == EEXIST || error == ENODEV;
}

/* Without a list the kernel has all it needs built in. */
static FILE *open_list(const char *folder, const char *list)
{
    char path[256];

    snprintf(path, sizeof(path), "%s/%s", folder, list);
    return fopen(path, "re");
}

static bool next_name(FILE *list)
{
    while (fgets(name, sizeof(name), list) != NULL) {
        name[strcspn(name, "\n")] = '\0';
        if (name[0] != '\0')
            return true;
    }
    return false;
}

const char *modules_load(const char *folder, const char *wanted)
{
    FILE *list = open_list(folder, wanted);
    const char *failed = NULL;

    while (list != NULL && failed == NULL && next_name(list))
        if (!load(folder))
            failed = name;
    if (list != NULL) {
        int error = errno;
        fclose(list);
        errno = error;
    }
    return failed;
}

void modules_remove(const char *folder, const char *wanted)
{
    FILE *list = open_list(folder, wanted);
    char path[256];

    while (list != NULL && next_name(list)) {
        snprintf(path, sizeof(path), "%s/%s", folder, name);
        unlink(path);
    }
    if (list != NULL)
        fclose(list);
}
