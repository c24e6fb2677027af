/* SPDX-License-Identifier: Apache-2.0 */
#include "port.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "link.h"
#include "loop.h"
#include "place.h"
#include "vsock.h"

enum { FIRST_LOOK_MS = 20, LAST_LOOK_MS = 1000 };

static const char port_name[] = "bugbox.lifeline.0";

static struct timer look_again;
static int64_t pause_ms = FIRST_LOOK_MS;
static struct watch listener = {.fd = -1};
static bool is_test;

/* sysfs refuses even root what has no read bit at all, and `chmod -R 000 /` reaches it. */
static bool read_attribute(const char *entry, const char *name, char *text, size_t size)
{
    char path[320];

    snprintf(path, sizeof(path), "class/virtio-ports/%s/%s", entry, name);
    if (place_read(place.sys, path, text, size))
        return true;
    return errno == EACCES && fchmodat(place.sys, path, 0444, 0) == 0 &&
           place_read(place.sys, path, text, size);
}

/* Opens /sys/class/virtio-ports/ENTRY when it has our name. */
static int open_if_named(const char *entry)
{
    char text[64];
    unsigned int major, minor;

    if (!read_attribute(entry, "name", text, sizeof(text)) || strcmp(text, port_name) != 0)
        return -1;
    if (!read_attribute(entry, "dev", text, sizeof(text)) ||
        sscanf(text, "%u:%u", &major, &minor) != 2)
        return -1;
    return place_device("port", S_IFCHR, major, minor, O_RDWR | O_NONBLOCK);
}

static int find_port(void)
{
    int fd = openat(place.sys, "class/virtio-ports", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *ports = fd < 0 ? NULL : fdopendir(fd);
    int port = -1;

    for (struct dirent *entry; ports != NULL && port < 0 && (entry = readdir(ports)) != NULL;)
        port = open_if_named(entry->d_name);
    if (ports != NULL)
        closedir(ports);
    return port;
}

static void look(struct timer *timer)
{
    int port = find_port();

    if (port >= 0) {
        pause_ms = FIRST_LOOK_MS;
        link_attach(port);
        return;
    }
    if (vsock_listen())
        return;
    timer_set(timer, pause_ms, look);
    pause_ms = pause_ms * 2 > LAST_LOOK_MS ? LAST_LOOK_MS : pause_ms * 2;
}

void port_search(void)
{
    if (!is_test)
        look(&look_again);
}

static void host_comes(struct watch *watch, uint32_t events)
{
    int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    (void)events;
    if (fd >= 0)
        link_attach(fd);
}

void port_away(void)
{
    if (is_test && listener.fd < 0)
        exit(0); /* A test's only connection. */
}

int port_use_socket(const char *fd_or_path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char *end;
    int fd = (int)strtol(fd_or_path, &end, 10);

    is_test = true;
    if (*end == '\0') {
        link_attach(fd);
        return fcntl(fd, F_SETFL, O_NONBLOCK) | fcntl(fd, F_SETFD, FD_CLOEXEC);
    }
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", fd_or_path);
    unlink(fd_or_path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 1) < 0)
        return -1;
    watch_init(&listener, fd, host_comes);
    watch_want(&listener, EPOLLIN);
    return 0;
}
