/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lifeline: one program, three lives. As process 1 of the initramfs it brings up the machine;
 * as the agent it serves the host; as the agent's twin it waits to take over. PROTOCOL.md says what
 * it speaks.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent.h"
#include "init.h"
#include "place.h"
#include "revive.h"

int main(int argc, char **argv)
{
    const char *life = argc > 1 ? argv[1] : "";

    /* In a machine only the kernel runs it without a word; anywhere else, process 1 may be us by
     * chance (a container), so the root must be the initramfs as well. */
    if (getpid() == 1 && access("/newroot", F_OK) == 0)
        init_run();
    if (strcmp(life, "--agent") == 0 && getenv("root") != NULL && getenv("started") != NULL) {
        place.root = atoi(getenv("root"));
        fcntl(place.root, F_SETFD, FD_CLOEXEC);
        agent_run(getenv("milestones"), atoi(getenv("started")));
    }
    if (strcmp(life, "--revive") == 0)
        revive_wait();
    if (strcmp(life, "--agent-test") == 0)
        return agent_test(argc, argv);
    fprintf(stderr, "usage: lifeline --agent-test FD|SOCKET [--root FOLDER]\n");
    return 2;
}
