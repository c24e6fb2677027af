/* SPDX-License-Identifier: Apache-2.0 */
/* In a child: a command's user, environment, folder, and the running of it. */
#ifndef COMMAND_H
#define COMMAND_H

#include <stddef.h>

#include "account.h"
#include "fields.h"

#define ROOT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define USER_PATH "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games"

struct environment {
    size_t count;
    char **items; /* NULL at its end once something was set */
};

/* Sets NAME=value, in place of an older one. */
void environment_set(struct environment *environment, const char *assignment);
const char *environment_get(const struct environment *environment, const char *name);
/* The defaults of a user. */
void environment_of(struct environment *environment, const struct account *account);
/* What the host sent, over what is there. */
void environment_add(struct environment *environment, const struct fields *fields);

/* The user of an OPEN, or the end of the child with a report. */
void command_account(const struct fields *fields, struct account *account, int report);
/* Becomes the user and enters the folder, or ends with a report. */
void command_become(const struct fields *fields, const struct account *account, int report);
/* Runs it, or ends with 126 or 127 and the reason on stderr, as a shell does. */
_Noreturn void command_run(char **argv, const struct environment *environment, int report);
/* Puts what runs the command in a systemd scope in front of it, where systemd answers; or else
 * enters a cgroup of that name. */
char **command_in_unit(char **argv, const char *name, const struct account *account);

#endif
