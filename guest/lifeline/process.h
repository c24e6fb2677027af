/* SPDX-License-Identifier: Apache-2.0 */
/* Child processes: who waits for which, and the first steps of every one. */
#ifndef PROCESS_H
#define PROCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct process {
    pid_t pid;       /* 0: none, or ended */
    bool ends_group; /* what is left of its group is killed when it ends */
    void (*ended)(struct process *process, int status);
    struct process *next;
};

/* Blocks SIGCHLD and the signals that must not end an agent; watches for ended children. */
bool process_init(void);
/* Forks; 0 in the child, as fork does. The parent is told through `ended`, unless forgotten. */
pid_t process_fork(struct process *process, void (*ended)(struct process *, int));
/* Nobody is told any more; the child is still reaped. */
void process_forget(struct process *process);
/* To the whole group of a child that leads one, and to itself in case it does not yet. */
void process_signal(const struct process *process, int signal);

/* What a child says to its parent before it runs something, or instead of it. */
struct report {
    int32_t error; /* 0: all is well */
    int64_t size, mode;
    char step[64];
    char message[160];
};

/* --- in the child, between fork and exec --- */

/*
 * A session of its own, these standard streams, ordinary signals, limits and OOM score. Of the
 * agent's other descriptors only the report and the place stay.
 */
void child_begin(const int streams[3], int report, const char *cgroup);
/* Into the guest's root. */
void child_enter_root(int report);
_Noreturn void child_fail(int report, int error, const char *step, const char *detail);
void child_succeed(int report, int64_t size, int64_t mode);

#endif
