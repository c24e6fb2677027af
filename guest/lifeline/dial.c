/* SPDX-License-Identifier: Apache-2.0 */
#include "dial.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

static void connected(struct watch *watch, uint32_t events)
{
    struct channel *channel = container_of(watch, struct channel, side);
    int error = 0;
    socklen_t size = sizeof(error);

    (void)events;
    if (getsockopt(watch->fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
        error = errno;
    if (error != 0) {
        channel_fail(channel, error, "connect", NULL);
        return;
    }
    /* Two descriptors of one socket: each direction is watched, and ends, on its own. */
    int out = fcntl(watch->fd, F_DUPFD_CLOEXEC, 3), in = fcntl(watch->fd, F_DUPFD_CLOEXEC, 3);
    watch_close(watch);
    channel_streams(channel, in, out, -1);
    channel_opened(channel, NULL);
    channel_update(channel);
}

void dial_open(struct channel *channel, const struct fields *fields)
{
    int64_t port = fields_number(fields, TAG_PORT, 0);
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons((uint16_t)port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };

    if (port < 1 || port > 65535) {
        channel_fail(channel, EINVAL, "read the port", NULL);
        return;
    }
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 &&
                   errno != EINPROGRESS)) {
        channel_fail(channel, errno, "connect", NULL);
        if (fd >= 0)
            close(fd);
        return;
    }
    watch_init(&channel->side, fd, connected);
    watch_want(&channel->side, EPOLLOUT);
}
