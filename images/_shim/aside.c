/* `cse-shim aside`: a command in the surroundings of an application that does not run: the same
 * sandbox, made for it alone, with this process's stdout and stderr. Nothing is written down of it,
 * so the application stays what it was. Called by the agent, to look at files.
 */
#include "shim.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* The specification as init reads it, with another program, in the root directory. */
static int with_command(int spec_fd, char **command)
{
    struct stat info;
    int made = (int)syscall(SYS_memfd_create, "cse-aside", 1U /* MFD_CLOEXEC */);
    if (made < 0 || fstat(spec_fd, &info) != 0) return -1;
    char *data = calloc(1, (size_t)info.st_size + 1);
    if (data == NULL || pread(spec_fd, data, (size_t)info.st_size, 0) != info.st_size) return -1;
    FILE *out = fdopen(dup(made), "w");
    if (out == NULL) return -1;
    for (char *at = data; at < data + info.st_size; at += strlen(at) + 1)
        if (strncmp(at, "arg=", 4) != 0) fprintf(out, "%s%c", at, 0);
    for (; *command; command++) fprintf(out, "arg=%s%c", *command, 0);
    fprintf(out, "cwd=/%c", 0);
    free(data);
    return fclose(out) == 0 ? made : -1;
}

/* Why the command was not executed; false where it was. */
static bool has_failed(int reports, const char *command)
{
    struct report report;
    while (recv(reports, &report, sizeof report, MSG_DONTWAIT) == (ssize_t)sizeof report) {
        if (report.what != REPORT_FAILED) continue;
        fprintf(stderr, "cse aside: %s: %.60s: %s\n", command, report.step, strerror(report.value));
        return true;
    }
    return false;
}

int aside_main(const struct spec *spec, int spec_fd, char **command)
{
    struct started started;
    const char *step = "specification";
    int status, given = with_command(spec_fd, command);
    if (given < 0 || !start_bwrap(spec, given, -1, true, &started, &step)) {
        fprintf(stderr, "cse aside: %s: %s\n", step, strerror(errno));
        return 125;
    }
    while (waitpid(started.bwrap, &status, 0) < 0)
        if (errno != EINTR) return 125;
    if (has_failed(started.report, command[0])) return 127;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
