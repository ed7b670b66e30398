/* Calls that take paths and that few programs make: each prints what it saw, the same on an
 * ordinary directory and in a mount. Used by test_fs_coverage.py.
 *
 *   unusual DIRECTORY      writable, with "text", "program" (echo), "library.so", "messages.cat"
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <mntent.h>
#include <nl_types.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utmpx.h>

static const char *top;

static char *at(const char *name)
{
    static char room[8][4096];
    static int turn;
    char *out = room[turn++ % 8];
    snprintf(out, 4096, "%s/%s", top, name);
    return out;
}

/* Below the directory, so that outputs can be compared. */
static const char *below(const char *path)
{
    size_t length = strlen(top);
    return path && strncmp(path, top, length) == 0 ? path + length : path ? path : "(null)";
}

static void names(void)
{
    struct stat status;
    char template[4096];
    stat(at("text"), &status);
    key_t key = ftok(at("text"), 7);
    printf("ftok %d, %d\n",
           key == (key_t)((status.st_ino & 0xffff) | (status.st_dev & 0xff) << 16 | 7u << 24),
           (int)ftok(at("none"), 7));
    snprintf(template, sizeof template, "%s/nXXXXXX", top);
    mktemp(template);
    printf("mktemp %zu %d\n", strlen(below(template)), access(template, F_OK));
    char *made = tempnam(top, "pre");
    printf("tempnam %.4s %d\n", below(made), made ? access(made, F_OK) : 0);
    free(made);
}

static void databases(void)
{
    FILE *file = setmntent(at("fstab"), "w");
    struct mntent entry = {"dev", "/there", "ext4", "rw", 0, 1};
    printf("setmntent %d addmntent %d\n", file != NULL, file ? addmntent(file, &entry) : -1);
    if (file != NULL) endmntent(file);
    file = setmntent(at("fstab"), "r");
    const struct mntent *read = file ? getmntent(file) : NULL;
    printf("getmntent %s\n", read ? read->mnt_dir : "nothing");
    if (file != NULL) endmntent(file);
    printf("setmntent of nothing %d %s\n", setmntent(at("none"), "r") != NULL, strerror(errno));
    nl_catd catalogue = catopen(at("messages.cat"), 0);
    printf("catopen %s\n", catalogue != (nl_catd)-1 ? catgets(catalogue, 1, 1, "?") : "nothing");
    struct utmpx record = {.ut_type = USER_PROCESS, .ut_user = "somebody"};
    close(open(at("wtmp"), O_CREAT | O_WRONLY, 0600));
    updwtmpx(at("wtmp"), &record);
    struct stat status = {0};
    stat(at("wtmp"), &status);
    printf("updwtmpx %d\n", (int)(status.st_size / sizeof record));
    utmpxname(at("wtmp"));
    setutxent();
    const struct utmpx *found = getutxent();
    printf("utmpxname %.8s\n", found ? found->ut_user : "nobody");
    endutxent();
}

static void attributes(void)
{
    int result = lchmod(at("text"), 0640);
    struct stat status = {0};
    stat(at("text"), &status);
    printf("lchmod %d %o\n", result, status.st_mode & 07777);
    struct {
        struct file_handle handle;
        char room[MAX_HANDLE_SZ];
    } handle = {.handle.handle_bytes = MAX_HANDLE_SZ};
    int mount_id;
    result = name_to_handle_at(AT_FDCWD, at("none"), &handle.handle, &mount_id, 0);
    printf("name_to_handle_at %d %s\n", result, strerror(errno));
}

static void sockets(void)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX}, told;
    socklen_t length = sizeof told;
    char data[16] = "";
    snprintf(name.sun_path, sizeof name.sun_path, "%s", at("socket"));
    int server = socket(AF_UNIX, SOCK_DGRAM, 0), client = socket(AF_UNIX, SOCK_DGRAM, 0);
    printf("bind %d\n", bind(server, (struct sockaddr *)&name, sizeof name));
    getsockname(server, (struct sockaddr *)&told, &length);
    printf("getsockname %s\n", below(told.sun_path));
    printf("sendto %zd\n", sendto(client, "one", 3, 0, (struct sockaddr *)&name, sizeof name));
    struct iovec part = {"two", 3};
    struct msghdr message = {
        .msg_name = &name, .msg_namelen = sizeof name, .msg_iov = &part, .msg_iovlen = 1};
    printf("sendmsg %zd\n", sendmsg(client, &message, 0));
    printf("recv %zd %zd\n", recv(server, data, sizeof data, MSG_DONTWAIT),
           recv(server, data, sizeof data, MSG_DONTWAIT));
    printf("connect %d\n", connect(client, (struct sockaddr *)&name, sizeof name));
    length = sizeof told;
    getpeername(client, (struct sockaddr *)&told, &length);
    printf("getpeername %s\n", below(told.sun_path));
}

static void programs(void)
{
    char *arguments[] = {"script", "word", NULL}, *environment[] = {NULL};
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        int fd = open(at("program"), O_RDONLY);
        fexecve(fd, arguments, environment);
        _exit(errno);
    }
    int status;
    waitpid(child, &status, 0);
    printf("fexecve %d\n", WEXITSTATUS(status));
    void *library = dlmopen(LM_ID_NEWLM, at("library.so"), RTLD_NOW);
    int (*answer)(void) = library ? dlsym(library, "answer") : NULL;
    printf("dlmopen %d\n", answer ? answer() : -1);
}

int main(int argc, char **argv)
{
    if (argc != 2) return 2;
    top = argv[1];
    names();
    databases();
    attributes();
    sockets();
    programs();
    return 0;
}
