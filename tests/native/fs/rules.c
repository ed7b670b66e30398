/* openat2 with every rule and many paths, execveat and an exchange of names: bare and mounted the
 * same. Arguments: the tree, what to do. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { RESOLVE_CACHED = 0x20 }; /* for which EAGAIN means another thing */

struct rules {
    uint64_t flags, mode, resolve, more;
};

static int open_by(int base, const char *path, uint64_t flags, uint64_t resolve, size_t size)
{
    struct rules how = {flags, 0, resolve, 0};
    int fd;
    do { /* EAGAIN: anybody on the machine renamed something while the kernel climbed by ".." */
        fd = syscall(SYS_openat2, base, path, &how, size);
    } while (fd < 0 && errno == EAGAIN && !(resolve & RESOLVE_CACHED));
    return fd < 0 ? -errno : fd;
}

static void say(const char *title, int fd)
{
    struct stat status;
    char text[8] = "";
    if (fd < 0) {
        printf("%s: %s\n", title, strerror(-fd));
        return;
    }
    fstat(fd, &status);
    if (S_ISREG(status.st_mode)) read(fd, text, sizeof text - 1);
    text[strcspn(text, "\n")] = 0;
    printf("%s: mode %o %s\n", title, status.st_mode, text);
    close(fd);
}

static void openings(const char *top)
{
    static const uint64_t rules[] = {0,    0x01, 0x02, 0x04, 0x08, 0x10, 0x0c,
                                     0x14, 0x09, 0x18, 0x80, 0x11, 0x1c};
    static const char *const paths[] = {"a.txt",
                                        "sub/b.txt",
                                        "link",
                                        "dirlink/b.txt",
                                        "dirlink",
                                        "dangling",
                                        "loop",
                                        "sub/../a.txt",
                                        "../mount/a.txt",
                                        "..",
                                        "sub/deep/up",
                                        "sub/deep/up/a.txt",
                                        "none",
                                        "none/x",
                                        "a.txt/x",
                                        "sub/",
                                        "a.txt/",
                                        ".",
                                        "/a.txt",
                                        "/etc/hostname",
                                        "/sub/../../a.txt",
                                        "sub/../..",
                                        "sub/../../a.txt",
                                        "dirlink/../a.txt",
                                        "sub/deep/../../link",
                                        "",
                                        "../../../../../../../../../../../../etc/passwd"};
    char title[200];
    int bases[2] = {open(top, O_RDONLY | O_DIRECTORY), AT_FDCWD};
    chdir(top);
    for (unsigned b = 0; b < 2; b++)
        for (unsigned r = 0; r < sizeof rules / sizeof *rules; r++)
            for (unsigned p = 0; p < sizeof paths / sizeof *paths; p++) {
                /* Leaving a mount crosses to another device, leaving a directory may not. */
                if (rules[r] == 0x01 && (paths[p][0] == '/' || strncmp(paths[p], "..", 2) == 0 ||
                                         strncmp(paths[p], "sub/../..", 9) == 0))
                    continue;
                snprintf(title, sizeof title, "base %u rule %llx %s", b,
                         (unsigned long long)rules[r], paths[p]);
                say(title, open_by(bases[b], paths[p], O_RDONLY, rules[r], 24));
                snprintf(title, sizeof title, "base %u rule %llx nofollow %s", b,
                         (unsigned long long)rules[r], paths[p]);
                say(title, open_by(bases[b], paths[p], O_PATH | O_NOFOLLOW, rules[r], 24));
            }
    say("short", open_by(bases[0], "a.txt", O_RDONLY, 0, 8));
    say("long", open_by(bases[0], "a.txt", O_RDONLY, 0, 32));
    say("mode without creation",
        syscall(SYS_openat2, bases[0], "a.txt", &(struct rules){O_RDONLY, 0600, 0}, 24) < 0 ? -errno
                                                                                            : 0);
    say("unknown flag", open_by(bases[0], "a.txt", UINT64_C(1) << 40, 0, 24));
    say("closed descriptor", open_by(900, "a.txt", O_RDONLY, 0x08, 24));
    int cached = open_by(bases[0], "a.txt", O_RDONLY, 0x20, 24);
    printf("cached %d\n", cached >= 0 || cached == -EAGAIN);
}

static void run(int base, const char *path, int flags)
{
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        char *arguments[] = {"run", "one", "two", NULL};
        syscall(SYS_execveat, base, path, arguments, environ, flags);
        printf("execveat %s: %s\n", path, strerror(errno));
        fflush(stdout);
        _exit(1);
    }
    int status;
    waitpid(child, &status, 0);
    printf("execveat %s ended with %d\n", path, status);
}

static void programs(const char *top)
{
    int base = open(top, O_RDONLY | O_DIRECTORY);
    chdir(top);
    run(base, "run.sh", 0);
    run(AT_FDCWD, "run.sh", 0);
    run(base, "none", 0);
    run(base, "link", AT_SYMLINK_NOFOLLOW);
    run(base, "a.txt", 0);
    run(base, "sub", 0);
}

static void swap(const char *a, const char *b)
{
    int result = syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, 2);
    printf("exchange %s %s: %s\n", a, b, result == 0 ? "done" : strerror(errno));
}

static void make(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT, 0644);
    printf("make %s: %s\n", path, fd >= 0 ? "done" : strerror(errno));
    close(fd);
}

/* What was known of the directory does not hold for the link. */
static void exchange_with_link(void)
{
    struct stat status;
    mkdir("there", 0755);
    mkdir("was", 0755);
    make("was/in");
    symlink("there", "link-there");
    swap("was", "link-there");
    make("was/fresh");
    printf("behind the link: %d\n", stat("there/fresh", &status));
    printf("moved: %d\n", stat("link-there/in", &status));
}

static void exchanges(const char *top)
{
    chdir(top);
    exchange_with_link();
    swap("a.txt", "sub/b.txt");
    swap("a.txt", "many");
    swap("sub", "empty");
    swap("link", "run.sh");
    swap("none", "run.sh");
    swap("run.sh", "none");
    swap("empty", "empty/deep");
    swap("empty", "empty");
}

int main(int count, char **arguments)
{
    if (strcmp(arguments[2], "open") == 0) openings(arguments[1]);
    if (strcmp(arguments[2], "exec") == 0) programs(arguments[1]);
    if (strcmp(arguments[2], "exchange") == 0) exchanges(arguments[1]);
    return 0;
}
