/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the agent stands: descriptors of the guest's root, of its own folder, and of mounts that
 * nobody in the guest can see, unmount, shadow or delete from.
 */
#ifndef PLACE_H
#define PLACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct place {
    int root;    /* the guest's root directory */
    int home;    /* writable view of /run/bugbox; the guest's own view is read-only. Or -1 */
    int busybox; /* the static tools, open, whatever becomes of their name. Or -1 */
    int proc, sys; /* private mounts of procfs and sysfs */
    int cgroup;  /* private mount of cgroup2. Or -1 */
    int nodes;   /* a private tmpfs for device nodes. Or -1 */
    int random;  /* the kernel's random numbers, to stir them. Or -1 */
    bool alone;  /* no other init: the build machine */
    bool trial;  /* run by a test on somebody's own system: no reboot, no clock, no cgroups */
    const char *started; /* HELLO's STARTED */
};

extern struct place place;

/* Opens everything but `root`, which must be there. */
void place_open(void);

/* Opens below the guest's root, whatever links lead to: an absolute one would lead into our own. */
int place_guest(const char *path, int flags);

/* Opens a device by its number through a node that nobody else sees. */
int place_device(const char *name, unsigned int type, unsigned int major, unsigned int minor,
                 int flags);

/* Reads a small file below a directory descriptor as text without its last newline. */
bool place_read(int folder, const char *path, char *text, size_t size);
bool place_write(int folder, const char *path, const char *text);

#endif
