/* Every wrapped call once, with its result on standard output: `calls ROOT read|write`.
 *
 * Run bare on an unpacked tree and under the overlay on the same tree in a mount; the two outputs
 * must be equal (tests/native/test_fs_calls.py). Inode numbers and devices are not printed. `read`
 * changes nothing; `write` changes the tree. The tree is made by tests/native/fs_harness.py.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <glob.h>
#include <limits.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <utime.h>

static char root[PATH_MAX];

/* ROOT/name, in one of a few buffers. */
static const char *at(const char *name)
{
    static char buffers[8][PATH_MAX * 2];
    static int turn;
    char *out = buffers[turn++ % 8];
    snprintf(out, sizeof buffers[0], "%s%s%s", root, name[0] ? "/" : "", name);
    return out;
}

static void say(const char *what, long result)
{
    if (result >= 0)
        printf("%s: %ld\n", what, result);
    else
        printf("%s: %s\n", what, strerrorname_np(errno));
}

static void say_text(const char *what, const char *text)
{
    if (text == NULL) {
        printf("%s: %s\n", what, strerrorname_np(errno));
        return;
    }
    /* The root differs between the two runs. */
    if (strncmp(text, root, strlen(root)) == 0)
        printf("%s: ROOT%s\n", what, text + strlen(root));
    else
        printf("%s: %s\n", what, text);
}

static void say_fd(const char *what, int fd)
{
    char text[64];
    if (fd < 0) {
        say(what, -1);
        return;
    }
    ssize_t got = read(fd, text, sizeof text - 1);
    text[got > 0 ? got : 0] = '\0';
    text[strcspn(text, "\n")] = '\0';
    printf("%s: \"%s\"\n", what, got < 0 ? strerrorname_np(errno) : text);
    close(fd);
}

static void say_status(const char *what, int result, const struct stat *status)
{
    if (result != 0) {
        say(what, -1);
        return;
    }
    bool directory = S_ISDIR(status->st_mode);
    printf("%s: %o size %ld uid %d links %ld time %ld\n", what, status->st_mode,
           directory ? 0 : (long)status->st_size, status->st_uid,
           directory ? 0 : (long)status->st_nlink, (long)status->st_mtim.tv_sec);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void say_directory(const char *what, DIR *directory)
{
    char *names[1000];
    int count = 0;
    struct dirent *entry;
    if (directory == NULL) {
        say(what, -1);
        return;
    }
    while (count < 1000 && (entry = readdir(directory)) != NULL) {
        char text[NAME_MAX + 8];
        snprintf(text, sizeof text, "%s/%d", entry->d_name, entry->d_type);
        names[count++] = strdup(text);
    }
    qsort(names, count, sizeof *names, by_text);
    printf("%s:", what);
    for (int i = 0; i < count; i++) {
        printf(" %s", names[i]);
        free(names[i]);
    }
    printf("\n");
    closedir(directory);
}

/* ---- questions ------------------------------------------------------------------------------- */

static const char *const NAMES[] = {
    "",
    ".",
    "a.txt",
    "empty",
    "sub",
    "sub/",
    "sub/b.txt",
    "sub/../a.txt",
    "./sub/./b.txt",
    "sub//b.txt",
    "sub/deep/n.bin",
    "link",
    "dirlink",
    "dirlink/",
    "dirlink/b.txt",
    "dirlink/../a.txt",
    "dangling",
    "loop",
    "missing",
    "missing/x",
    "a.txt/x",
    "a.txt/",
    "sub/deep/../../a.txt",
    "sub/deep/up/a.txt",
    "name with space",
    "\303\244.txt",
    "run.sh",
    "closed",
    "hard1",
    "hard2",
    "sub/missing",
};

static void statuses(void)
{
    char what[200];
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++) {
        struct stat status;
        snprintf(what, sizeof what, "stat %s", NAMES[i]);
        say_status(what, stat(at(NAMES[i]), &status), &status);
        snprintf(what, sizeof what, "lstat %s", NAMES[i]);
        say_status(what, lstat(at(NAMES[i]), &status), &status);
        snprintf(what, sizeof what, "access %s", NAMES[i]);
        say(what, access(at(NAMES[i]), R_OK));
        snprintf(what, sizeof what, "access X %s", NAMES[i]);
        say(what, access(at(NAMES[i]), X_OK));
        char text[PATH_MAX];
        ssize_t length = readlink(at(NAMES[i]), text, sizeof text - 1);
        if (length >= 0) text[length] = '\0';
        snprintf(what, sizeof what, "readlink %s", NAMES[i]);
        say_text(what, length < 0 ? NULL : text);
        snprintf(what, sizeof what, "realpath %s", NAMES[i]);
        say_text(what, realpath(at(NAMES[i]), text));
        snprintf(what, sizeof what, "open %s", NAMES[i]);
        say_fd(what, open(at(NAMES[i]), O_RDONLY));
        snprintf(what, sizeof what, "open nofollow %s", NAMES[i]);
        say_fd(what, open(at(NAMES[i]), O_RDONLY | O_NOFOLLOW));
        snprintf(what, sizeof what, "open directory %s", NAMES[i]);
        say_fd(what, open(at(NAMES[i]), O_RDONLY | O_DIRECTORY));
        snprintf(what, sizeof what, "open path %s", NAMES[i]);
        int fd = open(at(NAMES[i]), O_PATH | O_NOFOLLOW);
        say_status(what, fd < 0 ? -1 : fstat(fd, &status), &status);
        if (fd >= 0) close(fd);
        snprintf(what, sizeof what, "opendir %s", NAMES[i]);
        say_directory(what, opendir(at(NAMES[i])));
    }
    struct statx extended = {0};
    say("statx", statx(AT_FDCWD, at("sub/b.txt"), 0, STATX_ALL, &extended));
    printf("statx: %o %llu\n", extended.stx_mode, (unsigned long long)extended.stx_size);
    say("statx by number", syscall(SYS_statx, AT_FDCWD, at("a.txt"), 0, STATX_ALL, &extended));
    printf("statx: %o %llu\n", extended.stx_mode, (unsigned long long)extended.stx_size);
    say_fd("openat by number", (int)syscall(SYS_openat, AT_FDCWD, at("a.txt"), O_RDONLY, 0));
    struct statvfs facts;
    say("statvfs", statvfs(at("sub"), &facts));
    say("getxattr", getxattr(at("a.txt"), "user.none", NULL, 0));
    say("pathconf", pathconf(at("a.txt"), _PC_NAME_MAX));
}

static void identities(void)
{
    struct stat by_name, by_fd;
    const char *const some[] = {"a.txt", "sub", "sub/deep", "dirlink"};
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
        int fd = open(at(some[i]), O_RDONLY);
        printf("identity of %s: %d\n", some[i],
               stat(at(some[i]), &by_name) == 0 && fstat(fd, &by_fd) == 0 &&
                   by_name.st_ino == by_fd.st_ino && by_name.st_dev == by_fd.st_dev &&
                   by_name.st_mode == by_fd.st_mode &&
                   by_name.st_mtim.tv_sec == by_fd.st_mtim.tv_sec);
        close(fd);
    }
}

/* ---- relative to descriptors and the working directory
 * ---------------------------------------------- */

static void relative(void)
{
    char text[PATH_MAX];
    struct stat status;
    int outside = open("/", O_RDONLY | O_DIRECTORY);
    int sub = open(at("sub"), O_RDONLY | O_DIRECTORY);
    say_fd("openat", openat(sub, "b.txt", O_RDONLY));
    say_fd("openat ..", openat(sub, "../a.txt", O_RDONLY));
    say_fd("openat absolute", openat(sub, at("a.txt"), O_RDONLY));
    say_fd("openat outside", openat(outside, at("a.txt") + 1, O_RDONLY));
    say_status("fstatat", fstatat(sub, "deep", &status, 0), &status);
    say_status("fstatat empty", fstatat(sub, "", &status, AT_EMPTY_PATH), &status);
    say("faccessat", faccessat(sub, "b.txt", R_OK, 0));
    int copy = dup(sub);
    close(sub);
    say_fd("openat after dup", openat(copy, "b.txt", O_RDONLY));
    say_directory("fdopendir", fdopendir(openat(copy, "deep", O_RDONLY | O_DIRECTORY)));
    say("fchdir", fchdir(copy));
    say_text("getcwd after fchdir", getcwd(text, sizeof text));
    close(copy);
    say_fd("open relative", open("b.txt", O_RDONLY));
    say_fd("open relative ..", open("../a.txt", O_RDONLY));
    say("chdir ..", chdir(".."));
    say_text("getcwd", getcwd(text, sizeof text));
    say("chdir down", chdir("sub/deep"));
    say_text("getcwd down", getcwd(NULL, 0));
    say_directory("opendir .", opendir("."));
    say("chdir by link", chdir(at("dirlink")));
    say_text("getcwd by link", getcwd(text, sizeof text));
    say("chdir to file", chdir(at("a.txt")));
    say("chdir out", chdir("/"));
    say_text("getcwd out", getcwd(text, sizeof text));
    char climb[PATH_MAX];
    snprintf(climb, sizeof climb, "usr/..%s/a.txt", root);
    say_fd("into the mount from outside", open(climb, O_RDONLY));
    close(outside);
    struct dirent **list;
    int found = scandir(at("sub"), &list, NULL, alphasort);
    say("scandir", found);
    for (int i = 0; i < found; i++) printf(" %s", list[i]->d_name);
    printf("\n");
}

/* ---- contents
 * ------------------------------------------------------------------------------------------ */

static void contents(void)
{
    int fd = open(at("sub/deep/n.bin"), O_RDONLY);
    struct stat status = {0};
    fstat(fd, &status);
    unsigned sum = 0;
    unsigned char *map = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_SHARED, fd, 0);
    for (off_t i = 0; map != MAP_FAILED && i < status.st_size; i++) sum = sum * 31 + map[i];
    printf("mmap: %u of %ld\n", sum, (long)status.st_size);
    int pair[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    off_t offset = 100;
    ssize_t sent = sendfile(pair[0], fd, &offset, 1000);
    say("sendfile", sent);
    unsigned char block[1000];
    ssize_t got = sent > 0 ? read(pair[1], block, sizeof block) : 0;
    sum = 0;
    for (ssize_t i = 0; i < got; i++) sum = sum * 31 + block[i];
    printf("sendfile: %zd %u\n", got, sum);
    close(fd);
    close(pair[0]);
    close(pair[1]);
    char line[100] = "";
    FILE *file = fopen(at("a.txt"), "r");
    say_text("fopen", file ? fgets(line, sizeof line, file) : NULL);
    file = file ? freopen(at("sub/b.txt"), "r", file) : NULL;
    say_text("freopen", file ? fgets(line, sizeof line, file) : NULL);
    if (file) fclose(file);
    say("fopen missing", fopen(at("missing"), "r") ? 1 : -1);
}

static int open_many(void)
{
    int good = 0;
    for (int i = 0; i < 60; i++) {
        char name[40], text[40] = "", wanted[40];
        snprintf(name, sizeof name, "many/f%02d", i);
        snprintf(wanted, sizeof wanted, "content %d\n", i);
        int fd = open(at(name), O_RDONLY);
        if (fd >= 0 && read(fd, text, sizeof text - 1) > 0 && strcmp(text, wanted) == 0) good++;
        if (fd >= 0) close(fd);
    }
    return good;
}

/* Several processes fill the same files at the same time. */
static void together(void)
{
    pid_t children[6];
    for (int i = 0; i < 6; i++)
        if ((children[i] = fork()) == 0) _exit(open_many());
    for (int i = 0; i < 6; i++) {
        int status;
        waitpid(children[i], &status, 0);
        printf("child: %d\n", WEXITSTATUS(status));
    }
}

/* ---- walks
 * -----------------------------------------------------------------------------------------------
 */

static char walked[200][PATH_MAX];
static int walk_count;

static int note(const char *path, const struct stat *status, int kind, struct FTW *place)
{
    if (walk_count < 200)
        snprintf(walked[walk_count++], PATH_MAX, "%s %d %d %s", path + strlen(root), kind,
                 place->level, path + place->base);
    return 0;
}

static int compare_walked(const void *a, const void *b)
{
    return strcmp(a, b);
}

static void walks(void)
{
    say("nftw", nftw(at(""), note, 10, FTW_PHYS));
    qsort(walked, walk_count, PATH_MAX, compare_walked);
    for (int i = 0; i < walk_count; i++)
        if (strstr(walked[i], "/many/") == NULL) printf("  %s\n", walked[i]);
    glob_t found;
    say("glob", glob(at("s*/*.txt"), 0, NULL, &found));
    for (size_t i = 0; i < found.gl_pathc; i++) say_text("  glob", found.gl_pathv[i]);
    globfree(&found);
    say("glob dirs", glob(at("*"), GLOB_MARK, NULL, &found));
    for (size_t i = 0; i < found.gl_pathc; i++) say_text("  glob", found.gl_pathv[i]);
    globfree(&found);
    say("glob none", glob(at("no*"), 0, NULL, &found));
}

/* ---- programs
 * --------------------------------------------------------------------------------------------- */

static void wait_for(const char *what, pid_t child)
{
    int status = 0;
    fflush(stdout);
    if (waitpid(child, &status, 0) < 0)
        say(what, -1);
    else
        printf("%s: exit %d\n", what, WEXITSTATUS(status));
}

static void programs(void)
{
    char *const arguments[] = {"run.sh", "one", "two words", NULL};
    extern char **environ;
    int result;
    pid_t child = fork();
    if (child == 0) {
        execv(at("run.sh"), arguments);
        _exit(100 + errno);
    }
    wait_for("execv", child);
    child = vfork();
    if (child == 0) {
        execl(at("run.sh"), "run.sh", "by", "execl", NULL);
        _exit(100 + errno);
    }
    wait_for("vfork and execl", child);
    result = posix_spawn(&child, at("run.sh"), NULL, NULL, arguments, environ);
    wait_for("posix_spawn", child);
    say("posix_spawn", result);
    setenv("PATH", at(""), 1);
    result = posix_spawnp(&child, "run.sh", NULL, NULL, arguments, environ);
    wait_for("posix_spawnp", child);
    say("posix_spawnp", result);
    child = fork();
    if (child == 0) {
        execlp("run.sh", "run.sh", "by", "execlp", NULL);
        _exit(100 + errno);
    }
    wait_for("execlp", child);
    say("posix_spawn a file that is no program",
        posix_spawn(&child, at("missing"), NULL, NULL, arguments, environ));
    void *library = dlopen(at("missing.so"), RTLD_NOW);
    printf("dlopen missing: %d\n", library != NULL);
    setenv("PATH", "/bin:/usr/bin", 1);
}

/* ---- changes
 * ------------------------------------------------------------------------------------------------
 */

static void put(const char *name, int flags, const char *text)
{
    char what[200];
    snprintf(what, sizeof what, "write %s %o", name, flags);
    int fd = open(at(name), flags, 0640);
    say(what, fd < 0 ? -1 : write(fd, text, strlen(text)));
    if (fd >= 0) close(fd);
    snprintf(what, sizeof what, "then %s", name);
    say_fd(what, open(at(name), O_RDONLY));
}

static void changes(void)
{
    struct stat status;
    umask(022);
    put("a.txt", O_WRONLY | O_APPEND, "more");
    put("sub/b.txt", O_WRONLY | O_TRUNC, "anew");
    put("sub/deep/n.bin", O_RDWR, "overwritten ");
    put("fresh", O_WRONLY | O_CREAT | O_EXCL, "fresh");
    put("fresh", O_WRONLY | O_CREAT | O_EXCL, "again");
    put("sub/deep/fresh", O_WRONLY | O_CREAT, "deep");
    put("missing/x", O_WRONLY | O_CREAT, "x");
    put("link", O_WRONLY | O_APPEND, "through a link");
    put("dangling", O_WRONLY | O_CREAT, "behind a dangling link");
    put("dirlink/c", O_WRONLY | O_CREAT, "c");
    put("sub", O_WRONLY, "x");
    FILE *file = fopen(at("stream"), "w");
    say("fopen w", file ? fputs("stream", file) >= 0 : -1);
    if (file) fclose(file);
    file = fopen(at("a.txt"), "a+");
    say("fopen a", file ? fputs("!", file) >= 0 : -1);
    if (file) fclose(file);
    say_fd("after fopen", open(at("a.txt"), O_RDONLY));
    char name[PATH_MAX];
    snprintf(name, sizeof name, "%s", at("tmpXXXXXX"));
    int fd = mkstemp(name);
    say("mkstemp", fd >= 0 ? 0 : -1);
    say("unlink temporary", unlink(name));
    if (fd >= 0) close(fd);
    snprintf(name, sizeof name, "%s", at("dirXXXXXX"));
    say("mkdtemp", mkdtemp(name) ? 0 : -1);
    say("rmdir temporary", rmdir(name));

    say("mkdir", mkdir(at("d"), 0750));
    say("mkdir again", mkdir(at("d"), 0750));
    say("mkdir in missing", mkdir(at("missing/d"), 0750));
    say("stat d", stat(at("d"), &status) == 0 ? (long)status.st_mode : -1);
    put("d/x", O_WRONLY | O_CREAT, "x");
    say("rmdir full", rmdir(at("d")));
    say("rmdir full lower", rmdir(at("sub")));
    say("unlink directory", unlink(at("d")));
    say("rmdir file", rmdir(at("a.txt")));
    say("unlink missing", unlink(at("missing")));
    say("unlink lower", unlink(at("empty")));
    say("unlink again", unlink(at("empty")));
    say("stat gone", stat(at("empty"), &status));
    put("empty", O_WRONLY | O_CREAT, "back");
    say("remove", remove(at("d/x")));
    say("remove directory", remove(at("d")));
    say_directory("root", opendir(at("")));

    say("rename file", rename(at("a.txt"), at("renamed")));
    say("rename over", rename(at("renamed"), at("hard1")));
    say_fd("renamed", open(at("hard1"), O_RDONLY));
    say("stat old", stat(at("a.txt"), &status));
    say("rename missing", rename(at("missing"), at("x")));
    say("rename directory over file", rename(at("sub"), at("hard1")));
    say("rename file over directory", rename(at("hard1"), at("sub")));
    say("rename into itself", rename(at("sub"), at("sub/deep/sub")));
    say("rename over its directory", rename(at("sub/b.txt"), at("sub")));
    say("rename over one above", rename(at("sub/deep"), at("sub")));
    say("rename over one far above", rename(at("sub/deep/n.bin"), at("sub")));
    say("rename directory", rename(at("sub"), at("moved")));
    say_directory("moved", opendir(at("moved")));
    say_directory("moved deep", opendir(at("moved/deep")));
    say_directory("old", opendir(at("sub")));
    say_fd("moved file", open(at("moved/deep/fresh"), O_RDONLY));
    say("mkdir in its place", mkdir(at("sub"), 0755));
    say_directory("opaque", opendir(at("sub")));
    say("renameat2 noreplace",
        renameat2(AT_FDCWD, at("hard1"), AT_FDCWD, at("hard2"), RENAME_NOREPLACE));

    say("symlink", symlink("moved/deep", at("s")));
    say_directory("through symlink", opendir(at("s")));
    say("symlink again", symlink("x", at("s")));
    say("link", link(at("hard2"), at("hard3")));
    say("link again", link(at("hard2"), at("hard3")));
    say("stat hard3", stat(at("hard3"), &status) == 0 ? (long)status.st_nlink : -1);
    say("mkfifo", mkfifo(at("fifo"), 0600));
    say("fifo", lstat(at("fifo"), &status) == 0 ? (long)status.st_mode : -1);

    say("chmod", chmod(at("run.sh"), 0700));
    say("chmod directory", chmod(at("many"), 0700));
    struct timespec times[2] = {{1000000000, 0}, {1000000000, 0}};
    say("utimensat", utimensat(AT_FDCWD, at("run.sh"), times, 0));
    say("utimensat directory", utimensat(AT_FDCWD, at("many"), times, 0));
    say("utimes", utimes(at("hard2"), NULL));
    say_status("run.sh", stat(at("run.sh"), &status), &status);
    say_status("many", stat(at("many"), &status), &status);
    say("truncate", truncate(at("hard2"), 3));
    say("stat truncated", stat(at("hard2"), &status) == 0 ? (long)status.st_size : -1);
    fd = open(at("closed"), O_RDONLY);
    say("fchmod", fd < 0 ? -1 : fchmod(fd, 0644));
    if (fd >= 0) close(fd);
    say_status("fchmod", stat(at("closed"), &status), &status);

    int server = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(at("sock")) < sizeof address.sun_path) strcpy(address.sun_path, at("sock"));
    say("bind", bind(server, (struct sockaddr *)&address, sizeof address));
    say("listen", listen(server, 1));
    say("connect", connect(client, (struct sockaddr *)&address, sizeof address));
    say("bind again", bind(client, (struct sockaddr *)&address, sizeof address));
    close(server);
    close(client);
    say_directory("root at last", opendir(at("")));
}

int main(int count, char **arguments)
{
    if (count < 3) return 2;
    snprintf(root, sizeof root, "%s", arguments[1]);
    setvbuf(stdout, NULL, _IOLBF, 0); /* children write to it as well */
    if (strcmp(arguments[2], "read") == 0) {
        statuses();
        identities();
        relative();
        contents();
        together();
        walks();
        programs();
        statuses(); /* filled now */
    } else {
        changes();
        walks();
    }
    fflush(stdout);
    return 0;
}
