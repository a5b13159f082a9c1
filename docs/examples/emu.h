/* What the examples need beside a VMM: errors that end the program, and the emulator's control channel. */
#ifndef KVMVFIO_EMU_EXAMPLES_EMU_H
#define KVMVFIO_EMU_EXAMPLES_EMU_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int need(int result, const char *what)
{
    if (result < 0) {
        fprintf(stderr, "%s: %s\n", what, strerror(errno));
        exit(1);
    }
    return result;
}
#define NEED(call) need((call), #call)

/* ---- the emulator's control channel: one JSON line there, one back ---- */

static int control = -1;

static const char *emu(const char *request)
{
    static char answer[16384];
    size_t length = 0;

    NEED((int)write(control, request, strlen(request)));
    while (!memchr(answer, '\n', length)) {
        ssize_t got = read(control, answer + length, sizeof answer - 1 - length);
        if (got <= 0)
            exit(1);
        length += (size_t)got;
    }
    answer[length] = 0;
    return answer;
}

static void emu_connect(void)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    const char *path = getenv("KVMVFIO_EMU_CONTROL");

    if (!path) {
        fprintf(stderr, "run me under kvmvfio-emu run --control PATH\n");
        exit(1);
    }
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    control = NEED(socket(AF_UNIX, SOCK_STREAM, 0));
    NEED(connect(control, (struct sockaddr *)&address, sizeof address));
}

#endif
