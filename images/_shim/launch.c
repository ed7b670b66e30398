/* `cse-shim launch`: the small process that the agent's shims are forked from.
 *
 * Why: the agent is a large process with some six descriptors for each application. To start a
 * program from it, the kernel copies its table of descriptors and closes all of the copy again, and
 * the thread that asks waits for the exec. Here a start is one message and one fork.
 *
 * A message on fd 0 (SOCK_SEQPACKET) is DIR, with the descriptor to announce on and, where the
 * program is to be held, the one that it is held at. The launcher ends with the agent; its shims,
 * which are sessions of their own, go on.
 */
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { DIRECTORY_MAX = 1 << 16 };

struct request {
    char directory[DIRECTORY_MAX];
    int announce, gate; /* -1: none */
};

/* False at the end. */
static bool take_request(struct request *request)
{
    union {
        char space[CMSG_SPACE(2 * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec vector = {request->directory, DIRECTORY_MAX - 1};
    struct msghdr message = {.msg_iov = &vector,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof control};
    ssize_t got;
    while ((got = recvmsg(0, &message, MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    request->directory[got] = 0;
    int fds[2] = {-1, -1};
    struct cmsghdr *part = CMSG_FIRSTHDR(&message);
    if (part && part->cmsg_type == SCM_RIGHTS)
        memcpy(fds, CMSG_DATA(part), part->cmsg_len - CMSG_LEN(0));
    request->announce = fds[0], request->gate = fds[1];
    return true;
}

/* What `ps` shows of this process, in the place of the launcher's arguments. */
static void set_title(int argc, char **argv, const char *directory)
{
    char *start = argv[0], *end = argv[argc - 1] + strlen(argv[argc - 1]);
    memset(start, 0, (size_t)(end - start));
    snprintf(start, (size_t)(end - start), "cse-shim%c%s", 0, directory);
}

int launch_main(int argc, char **argv)
{
    static struct request request;
    take_short_turns(SLICE_NS);
    signal(SIGCHLD, SIG_IGN); /* shims end unattended */
    while (take_request(&request)) {
        pid_t pid = fork();
        if (pid == 0) {
            signal(SIGCHLD, SIG_DFL);
            setsid();
            int null = open("/dev/null", O_RDWR | O_CLOEXEC);
            dup2(null, 0);
            set_title(argc, argv, request.directory);
            return run_main(request.directory, false, request.announce, request.gate);
        }
        if (pid < 0) dprintf(request.announce, "failed fork: %s\n", strerror(errno));
        close(request.announce);
        if (request.gate >= 0) close(request.gate);
    }
    return 0;
}
