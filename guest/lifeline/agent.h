/* SPDX-License-Identifier: Apache-2.0 */
/* The agent: what is left of the lifeline once the real init runs. */
#ifndef AGENT_H
#define AGENT_H

/* Runs for ever, with `place.root` set. `init_started`: a pipe on which init says when it hands
 * over, or -1. */
_Noreturn void agent_run(const char *milestones, int init_started);
/* Run by a test on the system it runs on: lifeline --agent-test FD|SOCKET [--root FOLDER] */
int agent_test(int argc, char **argv);

#endif
