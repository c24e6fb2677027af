/* SPDX-License-Identifier: Apache-2.0 */
/*
 * systemd never touches a cgroup that it has no unit for, and we never touch one of its: the pids
 * controller is used where it is already on for the root's children (systemd turns it on).
 */
#include "cgroups.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "place.h"

#define SLICE "bugbox.slice"

/* Many more than a check or a person needs, many fewer than the kernel has. */
static const char pids_limit[] = "500";

static void limit(const char *folder)
{
    char path[160];

    if (place.alone)
        place_write(place.cgroup, "cgroup.subtree_control", "+pids");
    place_write(place.cgroup, SLICE "/cgroup.subtree_control", "+pids");
    snprintf(path, sizeof(path), "%s/pids.max", folder);
    place_write(place.cgroup, path, pids_limit);
}

void cgroup_enter(const char *name)
{
    char folder[128], path[160];

    if (place.cgroup < 0)
        return;
    snprintf(folder, sizeof(folder), SLICE "/%s", name);
    mkdirat(place.cgroup, SLICE, 0755);
    mkdirat(place.cgroup, folder, 0755);
    limit(folder);
    snprintf(path, sizeof(path), "%s/cgroup.procs", folder);
    place_write(place.cgroup, path, "0");
}
