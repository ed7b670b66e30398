/* cse-hold PROGRAM [ARGUMENT …]: executes the program once its network namespace has a default
 * route.
 *
 * Why: with `fallback: kernel` a container gets a kernel interface of its own. Docker makes the
 * network namespace and starts the program in one step, so the interface can only be moved in
 * while something else runs there: this. Each restart by Docker makes the namespace anew.
 * app/runtimes/docker puts it in front of the program; static, as the image may hold no libc.
 *
 * It gives up waiting after a while: a program without network says better than we can what it
 * lacks. Exit status 126 or 127 where the program cannot be executed, as a shell would give.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { PAUSE_MS = 2, PATIENCE_MS = 30 * 1000 };

/* The interface is there, has its address and is up: its gateway's route is added last. */
static bool has_default_route(void)
{
    char line[256], destination[16];
    FILE *table = fopen("/proc/self/net/route", "re");
    if (!table) return true; /* nothing to wait for that could be seen */
    bool found = false;
    while (!found && fgets(line, sizeof line, table))
        found = sscanf(line, "%*s %15s", destination) == 1 && strcmp(destination, "00000000") == 0;
    fclose(table);
    return found;
}

int main(int count, char **arguments)
{
    if (count < 2) {
        fprintf(stderr, "usage: cse-hold PROGRAM [ARGUMENT ...]\n");
        return 2;
    }
    for (int waited = 0; !has_default_route() && waited < PATIENCE_MS; waited += PAUSE_MS)
        nanosleep(&(struct timespec){.tv_nsec = PAUSE_MS * 1000000L}, NULL);
    execvp(arguments[1], arguments + 1);
    int reason = errno;
    fprintf(stderr, "cse-hold: exec %s failed: %s\n", arguments[1], strerror(reason));
    return reason == ENOENT ? 127 : 126;
}
