/* SPDX-License-Identifier: Apache-2.0 */
/* Mounts, as the few steps that init and the agent are made of. */
#ifndef MOUNTS_H
#define MOUNTS_H

#include <stdbool.h>
#include <stddef.h>

/* A fresh mount of a virtual filesystem that hangs in no tree; -1 with errno. */
int mount_detached(const char *type);
/* A writable, unseen view of what is mounted at `path` below `folder`. */
int mount_writable_view(int folder, const char *path);
/* Mounts on a path, making the folder where that is possible. */
bool mount_on(const char *type, const char *path, unsigned long flags, const char *options);
bool mount_make_read_only(const char *path);

/* Copies a file by descriptor; the target must not exist. */
bool copy_file(int from, int folder, const char *name, unsigned int mode);

#endif
