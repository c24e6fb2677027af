/* SPDX-License-Identifier: Apache-2.0 */
/* The injected static tools, and the private mount namespace that scripts run in. */
#ifndef TOOLS_H
#define TOOLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "account.h"

#define HOME_PATH "/run/bugbox"
#define TOOLS_PATH "/run/bugbox/tools"
#define SCRIPT_PATH "/run/bugbox/script"

/* In the agent: makes one link an applet, the first time it is needed. */
void tools_prepare(void);

/* --- in a child, inside the guest's root --- */

/* A mount namespace in which nothing is shared with the guest. */
bool namespace_private(void);
/* One in which /run/bugbox is ours and everything else is the guest's, mounts included. */
bool namespace_with_tools(void);
/*
 * One in which a login is not written down. bugbox tries whether one can log in, and nobody came:
 * whoever looks for traces of others must not find that in wtmp or behind "Last login".
 */
void namespace_without_records(void);
/* Puts a script on a tmpfs of the present namespace. */
bool script_place(const char *name, const uint8_t *text, size_t size, const struct account *owner,
                  bool vanishing);
bool script_name_is_good(const char *name);

#endif
