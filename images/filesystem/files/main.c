/* cse-files: what an application sees of files, for `cse fs` and the dashboard.
 *
 * The agent runs it beside the application, in its namespaces, as its user and with its elements
 * linked; of one that does not run, in the same surroundings made once more. So links, devices and
 * permissions are the application's own affair and nothing on the host can be reached by them.
 * Answers are lines of words on stdout (words.c), contents and archives bytes; what went wrong is
 * one line on stderr and exit status 1. Arguments are percent-encoded, since Docker takes no bytes.
 * Read by app/domain/files.py, which takes nothing that comes from here for granted.
 *
 *   cse-files list PATH AFTER LIMIT         names behind AFTER, in order, each with its status
 *   cse-files explain PATH                  which mount and layer serve it, and what the others
 * have cse-files content PATH OFFSET LIMIT     a line, then bytes (LIMIT -1: all) cse-files changes
 * PATH AFTER LIMIT      what was changed below PATH ("/": in all mounts) cse-files archive PATH
 * all|changes      a tar archive of it
 */
#include "files.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const struct cse_fs_tools *tools;

static long number(const char *text)
{
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno != 0 || *end != '\0') fail(EINVAL, text);
    return value;
}

/* No FIFO is waited for and no device is touched: only what is a file is opened. */
void content(const char *path, long offset, long limit)
{
    static char block[256 << 10];
    struct stat status;
    if (stat(path, &status) != 0) fail(errno, path);
    if (S_ISDIR(status.st_mode)) fail(EISDIR, path);
    if (!S_ISREG(status.st_mode)) fail(ENXIO, path);
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) != 0) fail(errno, path);
    if (!S_ISREG(status.st_mode)) fail(ENXIO, path);
    if (offset > 0 && lseek(fd, offset, SEEK_SET) < 0) fail(errno, path);
    say("content");
    say_status(&status);
    say_end();
    fflush(stdout);
    while (limit != 0) {
        size_t wanted = limit < 0 || limit > (long)sizeof block ? sizeof block : (size_t)limit;
        ssize_t got = read(fd, block, wanted);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) fail(errno, path);
        if (got == 0) break;
        if (fwrite(block, 1, (size_t)got, stdout) != (size_t)got) exit(1);
        if (limit > 0) limit -= got;
    }
}

int main(int count, char **words)
{
    static char buffer[256 << 10];
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    tools = dlsym(RTLD_DEFAULT, CSE_FS_TOOLS_SYMBOL);
    for (int i = 1; i < count; i++)
        if (!decode(words[i])) fail(EINVAL, words[i]);
    if (count < 3 || words[2][0] != '/') {
        fprintf(stderr,
                "usage: cse-files list|explain|content|changes|archive /PATH [ARGUMENT ...]\n");
        return 64;
    }
    const char *command = words[1], *path = words[2];
    if (strcmp(command, "list") == 0 && count == 5)
        list(path, words[3], number(words[4]));
    else if (strcmp(command, "explain") == 0 && count == 3)
        explain(path);
    else if (strcmp(command, "content") == 0 && count == 5)
        content(path, number(words[3]), number(words[4]));
    else if (strcmp(command, "changes") == 0 && count == 5)
        changes(path, words[3], number(words[4]));
    else if (strcmp(command, "archive") == 0 && count == 4)
        archive(path, strcmp(words[3], "changes") == 0);
    else
        fail(EINVAL, command);
    return fflush(stdout) == 0 && !ferror(stdout) ? 0 : 1;
}
