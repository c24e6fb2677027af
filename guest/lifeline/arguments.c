/* SPDX-License-Identifier: Apache-2.0 */
#include "arguments.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static bool take(const char *word, const char *name, char *value, size_t size)
{
    size_t length = strlen(name);

    if (strncmp(word, name, length) != 0 || word[length] != '=')
        return false;
    snprintf(value, size, "%s", word + length + 1);
    return true;
}

bool arguments_read(struct arguments *arguments)
{
    static char line[4096];
    int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);

    *arguments = (struct arguments){.type = "ext4", .init = "/sbin/init"};
    if (fd < 0)
        return false;
    ssize_t count = read(fd, line, sizeof(line) - 1);
    close(fd);
    if (count < 0)
        return false;
    for (char *word = strtok(line, " \n"); word != NULL; word = strtok(NULL, " \n")) {
        if (take(word, "bugbox.root", arguments->root, sizeof(arguments->root)) ||
            take(word, "bugbox.rootfstype", arguments->type, sizeof(arguments->type)) ||
            take(word, "bugbox.overlay", arguments->overlay, sizeof(arguments->overlay)) ||
            take(word, "bugbox.init", arguments->init, sizeof(arguments->init)))
            continue;
        arguments->debug = arguments->debug || strcmp(word, "bugbox.debug") == 0;
        arguments->vsock = arguments->vsock || strcmp(word, "bugbox.lifeline=vsock") == 0;
    }
    arguments->alone = strcmp(arguments->init, "none") == 0;
    return true;
}
