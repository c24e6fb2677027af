/* SPDX-License-Identifier: Apache-2.0 */
#include "exec.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "place.h"
#include "tools.h"

enum { NAME = 101 };

static void enter_namespace(const struct fields *fields, bool tools, int report)
{
    if (tools && !namespace_with_tools())
        child_fail(report, errno, "bring the tools", NULL);
    if (!tools && fields_flag(fields, "private") && !namespace_private())
        child_fail(report, errno, "make a mount namespace", NULL);
}

static void put_tools_first(struct environment *environment)
{
    const char *path = environment_get(environment, "PATH");
    char assignment[4096];

    snprintf(assignment, sizeof(assignment), "PATH=" TOOLS_PATH ":%s", path != NULL ? path : "");
    environment_set(environment, assignment);
}

static _Noreturn void run(const struct fields *fields, char **argv, const struct account *account,
                          bool tools, int report)
{
    struct environment environment = {0};
    char name[NAME] = "";

    environment_of(&environment, account);
    environment_add(&environment, fields);
    if (tools)
        put_tools_first(&environment);
    if (fields_text(fields, TAG_NAME, name, sizeof(name)) && !script_name_is_good(name))
        child_fail(report, EINVAL, "read the name", name);
    if (fields_flag(fields, "unit"))
        argv = command_in_unit(argv, name, account);
    command_become(fields, account, report);
    command_run(argv, &environment, report);
}

static void exec_body(const struct fields *fields, int report)
{
    bool tools = fields_flag(fields, "tools");
    struct account account;

    child_enter_root(report);
    command_account(fields, &account, report);
    enter_namespace(fields, tools, report);
    run(fields, fields_texts(fields, TAG_ARG), &account, tools, report);
}

/* sh SCRIPT ARG… */
static char **script_argv(const struct fields *fields, const char *name)
{
    char **given = fields_texts(fields, TAG_ARG), path[160];
    size_t count = 0;

    while (given != NULL && given[count] != NULL)
        count++;
    char **argv = calloc(count + 3, sizeof(*argv));
    if (argv == NULL)
        return NULL;
    snprintf(path, sizeof(path), SCRIPT_PATH "/%s", name);
    argv[0] = strdup(TOOLS_PATH "/sh");
    argv[1] = strdup(path);
    if (count > 0)
        memcpy(argv + 2, given, count * sizeof(*given));
    return argv;
}

static void script_body(const struct fields *fields, int report)
{
    struct account account;
    struct field text;
    char name[NAME];

    child_enter_root(report);
    command_account(fields, &account, report);
    if (!fields_text(fields, TAG_NAME, name, sizeof(name)) || !script_name_is_good(name) ||
        !fields_first(fields, TAG_SCRIPT, &text))
        child_fail(report, EINVAL, "read the script", NULL);
    enter_namespace(fields, true, report);
    if (!script_place(name, text.value, text.length, &account, fields_flag(fields, "unit")))
        child_fail(report, errno, "place the script", NULL);
    run(fields, script_argv(fields, name), &account, true, report);
}

void exec_open(struct channel *channel, const struct fields *fields)
{
    channel->keep_running = fields_flag(fields, "unit");
    if (fields_flag(fields, "tools"))
        tools_prepare();
    channel_spawn(channel, fields, "commands", exec_body);
}

void script_open(struct channel *channel, const struct fields *fields)
{
    channel->keep_running = fields_flag(fields, "unit");
    tools_prepare();
    channel_spawn(channel, fields, "scripts", script_body);
    /* A check must leave the processes as they were, even when it forgot one. */
    if (channel->id != 0)
        channel->process.ends_group = !channel->keep_running;
}
