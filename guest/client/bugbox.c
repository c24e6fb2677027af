/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bugbox in the guest: asks the lifeline, which asks outside. It prints what comes back; the last
 * byte, after a NUL, is the exit status.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { QUESTION = 1024, TRY_LATER = 75, WIDTH = sizeof("--width=65535") };

static const char usage[] = "usage: bugbox check | hint [N] | story\n"
                            "Asks the bugbox outside: is it fixed? what next? what is it about?\n";

/* For a person at a terminal the answer is laid out to its width. */
static size_t add_width(char *end)
{
    struct winsize window;

    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) < 0 || window.ws_col == 0)
        return 0;
    return (size_t)snprintf(end, WIDTH, "--width=%u", (unsigned)window.ws_col) + 1;
}

static int gather(char *question, int argc, char **argv)
{
    size_t size = 0;

    for (int i = 1; i < argc; i++) {
        size_t length = strlen(argv[i]) + 1;
        if (length == 1 || size + length + WIDTH + 1 > QUESTION)
            return -1;
        memcpy(question + size, argv[i], length);
        size += length;
    }
    size += add_width(question + size);
    question[size++] = '\0';
    return (int)size;
}

static int dial(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/run/bugbox/ask"};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        close(fd);
        fd = -1;
    }
    return fd;
}

/* Holds the last two bytes back: they may be the NUL and the status. */
static int print_answer(int fd)
{
    char bytes[4096 + 2];
    size_t held = 0;
    ssize_t count;

    while ((count = read(fd, bytes + held, sizeof(bytes) - held)) != 0) {
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            break;
        held += (size_t)count;
        if (held > 2) {
            fwrite(bytes, 1, held - 2, stdout);
            fflush(stdout);
            memmove(bytes, bytes + held - 2, 2);
            held = 2;
        }
    }
    if (held == 2 && bytes[0] == '\0')
        return (unsigned char)bytes[1];
    fwrite(bytes, 1, held, stdout);
    fflush(stdout);
    fputs("bugbox: the answer was cut off\n", stderr);
    return TRY_LATER;
}

int main(int argc, char **argv)
{
    char question[QUESTION + 1];

    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        fputs(usage, argc < 2 ? stderr : stdout);
        return argc < 2 ? 2 : 0;
    }
    int size = gather(question, argc, argv);
    if (size < 0) {
        fputs("bugbox: the question is too long, or empty\n", stderr);
        return 2;
    }
    /* One that is turned away is told why before it could ask. */
    signal(SIGPIPE, SIG_IGN);
    int fd = dial();
    if (fd < 0 || (write(fd, question, (size_t)size) < 0 && errno != EPIPE)) {
        fprintf(stderr, "bugbox: /run/bugbox/ask: %s\n", strerror(errno));
        return TRY_LATER;
    }
    return print_answer(fd);
}
