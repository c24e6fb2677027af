/* SPDX-License-Identifier: Apache-2.0 */
/* Cgroups of our own below bugbox.slice, so that a fork bomb in one command ends at a limit. */
#ifndef CGROUPS_H
#define CGROUPS_H

/* Moves the caller into bugbox.slice/NAME. Best effort: without cgroup2 nothing happens. */
void cgroup_enter(const char *name);

#endif
