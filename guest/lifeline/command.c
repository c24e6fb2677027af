/* SPDX-License-Identifier: Apache-2.0 */
#include "command.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "cgroups.h"
#include "place.h"
#include "process.h"

enum {
    NOT_FOUND = 127,
    NOT_RUN = 126,
    /* The lifeline answers before the real init does: a unit may have to wait for it. */
    SYSTEMD_MS = 10000,
    LOOK_EVERY_MS = 20,
    NAMES = 100,
};

static const char systemd_run[] = "/usr/bin/systemd-run";

static size_t name_length(const char *assignment)
{
    return strcspn(assignment, "=") + 1;
}

void environment_set(struct environment *environment, const char *assignment)
{
    size_t length = name_length(assignment);

    if (assignment[length - 1] != '=')
        return;
    for (size_t i = 0; i < environment->count; i++)
        if (strncmp(environment->items[i], assignment, length) == 0) {
            environment->items[i] = strdup(assignment);
            return;
        }
    char **items = realloc(environment->items, (environment->count + 2) * sizeof(*items));
    if (items == NULL)
        return;
    items[environment->count++] = strdup(assignment);
    items[environment->count] = NULL;
    environment->items = items;
}

const char *environment_get(const struct environment *environment, const char *name)
{
    size_t length = strlen(name);

    for (size_t i = 0; i < environment->count; i++)
        if (strncmp(environment->items[i], name, length) == 0 &&
            environment->items[i][length] == '=')
            return environment->items[i] + length + 1;
    return NULL;
}

static void set(struct environment *environment, const char *name, const char *value)
{
    char assignment[512];

    snprintf(assignment, sizeof(assignment), "%s=%s", name, value);
    environment_set(environment, assignment);
}

void environment_of(struct environment *environment, const struct account *account)
{
    set(environment, "HOME", account->home);
    set(environment, "USER", account->name);
    set(environment, "LOGNAME", account->name);
    set(environment, "SHELL", account->shell);
    set(environment, "PATH", account->uid == 0 ? ROOT_PATH : USER_PATH);
    set(environment, "LANG", "C.UTF-8");
}

void environment_add(struct environment *environment, const struct fields *fields)
{
    char **assignments = fields_texts(fields, TAG_ENV);

    for (size_t i = 0; assignments != NULL && assignments[i] != NULL; i++)
        environment_set(environment, assignments[i]);
}

void command_account(const struct fields *fields, struct account *account, int report)
{
    char name[64] = "root";

    fields_text(fields, TAG_USER, name, sizeof(name));
    if (!account_find(name, account))
        child_fail(report, ENOENT, "look up the user", name);
    if (account->guessed && strcmp(name, "root") != 0)
        dprintf(2, "bugbox: /etc/passwd cannot be read; taking %s for user %u\n", name,
                account->uid);
}

void command_become(const struct fields *fields, const struct account *account, int report)
{
    char folder[PATH_MAX];
    bool given = fields_text(fields, TAG_CWD, folder, sizeof(folder));

    if (!account_become(account))
        child_fail(report, errno, "become the user", account->name);
    if (given && chdir(folder) < 0)
        child_fail(report, errno, "enter the folder", folder);
    if (!given && chdir(account->home) < 0 && chdir("/") < 0)
        child_fail(report, errno, "enter the folder", "/");
}

static _Noreturn void not_run(const char *name, int error)
{
    dprintf(2, "bugbox: %s: %s\n", name, strerror(error));
    _exit(error == ENOENT || error == ENOTDIR ? NOT_FOUND : NOT_RUN);
}

static _Noreturn void search_and_run(char **argv, const struct environment *environment)
{
    const char *folders = environment_get(environment, "PATH");
    int worst = ENOENT;

    while (folders != NULL) {
        char path[PATH_MAX];
        int length = (int)strcspn(folders, ":");
        if (length == 0)
            snprintf(path, sizeof(path), "./%s", argv[0]);
        else
            snprintf(path, sizeof(path), "%.*s/%s", length, folders, argv[0]);
        execve(path, argv, environment->items);
        if (errno != ENOENT && errno != ENOTDIR)
            worst = errno;
        folders = folders[length] == ':' ? folders + length + 1 : NULL;
    }
    not_run(argv[0], worst);
}

void command_run(char **argv, const struct environment *environment, int report)
{
    if (argv == NULL || argv[0] == NULL || argv[0][0] == '\0')
        child_fail(report, EINVAL, "read the command", NULL);
    if (strchr(argv[0], '/') == NULL)
        search_and_run(argv, environment);
    execve(argv[0], argv, environment->items);
    not_run(argv[0], errno);
}

static bool systemd_answers_now(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/run/systemd/private"};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return false;
    bool answers = connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
    close(fd);
    return answers;
}

static bool systemd_answers(void)
{
    const struct timespec pause = {.tv_nsec = LOOK_EVERY_MS * 1000000};
    char init[32];

    if (place.alone || place.trial || access(systemd_run, X_OK) < 0)
        return false;
    if (!place_read(place.proc, "1/comm", init, sizeof(init)) || strcmp(init, "systemd") != 0)
        return false;
    for (int waited = 0; waited < SYSTEMD_MS; waited += LOOK_EVERY_MS) {
        if (systemd_answers_now())
            return true;
        nanosleep(&pause, NULL);
    }
    return false;
}

static bool scope_exists(const char *name)
{
    char path[200];
    struct stat status;

    snprintf(path, sizeof(path), "system.slice/%s.scope", name);
    return fstatat(place.cgroup, path, &status, 0) == 0;
}

/* What an earlier run left behind still has the name: take the next one. */
static void free_name(const char *wanted, char *name, size_t size)
{
    snprintf(name, size, "%s", wanted);
    for (int number = 2; number < NAMES && scope_exists(name); number++)
        snprintf(name, size, "%s-%d", wanted, number);
}

static char **with_prefix(char **argv, const char *unit)
{
    static const char *const prefix[] = {systemd_run, "--scope", "--quiet", "--collect"};
    size_t count = 0, fixed = sizeof(prefix) / sizeof(*prefix);

    while (argv[count] != NULL)
        count++;
    char **whole = calloc(count + fixed + 3, sizeof(*whole));
    if (whole == NULL)
        return NULL;
    for (size_t i = 0; i < fixed; i++)
        whole[i] = strdup(prefix[i]);
    whole[fixed] = strdup(unit);
    whole[fixed + 1] = strdup("--");
    memcpy(whole + fixed + 2, argv, count * sizeof(*argv));
    return whole;
}

char **command_in_unit(char **argv, const char *wanted, const struct account *account)
{
    char base[112], name[128], option[160];

    if (argv == NULL || argv[0] == NULL)
        return argv;
    snprintf(base, sizeof(base), "%s", *wanted != '\0' ? wanted : "bugbox-command");
    char *end = strrchr(base, '.');
    if (end != NULL && strcmp(end, ".sh") == 0)
        *end = '\0';
    /* systemd-run could change the user too, but through name services, which may be broken. */
    if (account->uid != 0 || !systemd_answers()) {
        cgroup_enter(base);
        return argv;
    }
    free_name(base, name, sizeof(name));
    snprintf(option, sizeof(option), "--unit=%s.scope", name);
    return with_prefix(argv, option);
}
