/* SPDX-License-Identifier: Apache-2.0 */
#include "revive.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent.h"
#include "place.h"

#define UNIT "systemd/system/bugbox-lifeline.service"
#define WANTED "systemd/system/sysinit.target.wants"

/*
 * '@' in front of the path: the next word is argv[0], and as that begins with '@' too, systemd's
 * last killing spree spares a twin that has become the agent. No start limit: somebody may well
 * kill everything ten times. SIGKILL, as the agent ignores what `kill -1` would send. Its standard
 * streams are a node of our own: after `rm -rf /` there is no /dev/null to open.
 */
static const char unit[] =
    "[Unit]\n"
    "Description=bugbox: the line to the outside, in case its first end is killed\n"
    "Documentation=file:/run/bugbox\n"
    "DefaultDependencies=no\n"
    "RequiresMountsFor=/run/bugbox\n"
    "Conflicts=shutdown.target\n"
    "Before=shutdown.target\n"
    "StartLimitIntervalSec=0\n"
    "\n"
    "[Service]\n"
    "Type=simple\n"
    "ExecStart=@/run/bugbox/lifeline @bugbox-lifeline --revive\n"
    "Restart=always\n"
    "RestartSec=250ms\n"
    "KillMode=process\n"
    "KillSignal=SIGKILL\n"
    "SuccessExitStatus=SIGKILL\n"
    "OOMScoreAdjust=-1000\n"
    "TasksMax=infinity\n"
    "LimitNOFILE=524288\n"
    "StandardInput=file:/run/bugbox/null\n"
    "StandardOutput=file:/run/bugbox/null\n"
    "StandardError=file:/run/bugbox/null\n";

bool revive_write_unit(int run)
{
    static const char *const folders[] = {"systemd", "systemd/system", WANTED};

    for (size_t i = 0; i < sizeof(folders) / sizeof(*folders); i++)
        if (mkdirat(run, folders[i], 0755) < 0 && errno != EEXIST)
            return false;
    int fd = openat(run, UNIT, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return false;
    bool written = write(fd, unit, sizeof(unit) - 1) == (ssize_t)sizeof(unit) - 1;
    close(fd);
    return written && symlinkat("../bugbox-lifeline.service", run,
                                WANTED "/bugbox-lifeline.service") == 0;
}

void revive_wait(void)
{
    int lock = open("/run/bugbox/lock", O_RDONLY | O_CLOEXEC);

    if (lock < 0)
        exit(1);
    while (flock(lock, LOCK_EX) < 0)
        if (errno != EINTR)
            exit(1);
    /* The agent locks the file for itself: this descriptor has done its work. */
    close(lock);
    place.root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    place.started = "revived";
    agent_run("", -1);
}
