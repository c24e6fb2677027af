/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Some VMMs have no virtio-serial port, but a socket from the host to a port of the guest. The host
 * connects as soon as we listen, and again after a pause, a restart of its own or a clone's start:
 * the newest connection is the conversation.
 */
#include "vsock.h"

#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>

#include "link.h"
#include "loop.h"
#include "place.h"

/* As in <linux/vm_sockets.h>: musl comes without the kernel's headers. */
struct address {
    sa_family_t family;
    uint16_t reserved;
    uint32_t port, cid;
    uint8_t zero[4];
};
enum { CID_HOST = 2 };
#define CID_ANY UINT32_MAX

static struct watch listener = {.fd = -1};

static void host_comes(struct watch *watch, uint32_t events)
{
    struct address from;
    socklen_t size = sizeof(from);
    int fd = accept4(watch->fd, (struct sockaddr *)&from, &size, SOCK_CLOEXEC | SOCK_NONBLOCK);

    (void)events;
    if (fd < 0)
        return;
    /* Anybody in the guest can connect to a port of the guest; only the host may speak to us. */
    if (size != sizeof(from) || from.family != AF_VSOCK || from.cid != CID_HOST) {
        close(fd);
        return;
    }
    link_attach(fd);
}

/* Its number is the driver's to choose, so its presence alone tells that there is such a device. */
static bool has_device(void)
{
    char text[32];

    return place_read(place.sys, "class/misc/vsock/dev", text, sizeof(text));
}

bool vsock_listen(void)
{
    struct address address = {.family = AF_VSOCK, .port = VSOCK_PORT, .cid = CID_ANY};

    if (listener.fd >= 0)
        return true;
    if (!has_device())
        return false;
    int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return false;
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 4) < 0) {
        close(fd);
        return false;
    }
    watch_init(&listener, fd, host_comes);
    watch_want(&listener, EPOLLIN);
    return true;
}
