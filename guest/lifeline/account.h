/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's accounts, read from its files by ourselves: no name service can be relied on. */
#ifndef ACCOUNT_H
#define ACCOUNT_H

#include <stdbool.h>
#include <sys/types.h>

enum { ACCOUNT_GROUPS = 64 };

struct account {
    char name[64];
    uid_t uid;
    gid_t gid;
    char home[256], shell[256];
    gid_t groups[ACCOUNT_GROUPS];
    int group_count;
    bool guessed; /* /etc/passwd could not be read; `root` and `learner` are known anyway */
};

/* To be called inside the guest's root. False: there is no such user. */
bool account_find(const char *name, struct account *account);
/* Becomes that user for good; false with errno. */
bool account_become(const struct account *account);

#endif
