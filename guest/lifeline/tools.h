/* SPDX-License-Identifier: Apache-2.0 */
/* The injected static tools, and the private mount namespace that scripts run in. */
#ifndef TOOLS_H
#define TOOLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "account.h"

#define TOOLS_PATH "/run/bugbox/tools"
#define SCRIPT_PATH "/run/bugbox/script"

/* In the agent: makes one link an applet, the first time it is needed. */
void tools_prepare(void);

/* --- in a child, inside the guest's root --- */

/* A mount namespace in which nothing is shared with the guest. */
bool namespace_private(void);
/* One in which /run/bugbox is ours and everything else is the guest's, mounts included. */
bool namespace_with_tools(void);
/* Puts a script on a tmpfs of the present namespace. */
bool script_place(const char *name, const uint8_t *text, size_t size, const struct account *owner,
                  bool vanishing);
bool script_name_is_good(const char *name);

#endif
