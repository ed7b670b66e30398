/* Changes names in a directory that other processes list all the while: what it sees follows from
 * its own changes alone. Prints what does not. Used by test_fs_storm.py.
 *
 *   changes DIRECTORY ROUNDS LISTERS
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { OTHERS = 40, LISTERS_MAX = 16, NONE = -1 };

static const char *top;
static int round_number;

static const char *at(const char *name)
{
    static char paths[4][PATH_MAX];
    static int turn;
    char *path = paths[turn++ % 4];
    snprintf(path, PATH_MAX, "%s/%s", top, name);
    return path;
}

/* As readdir shows it. */
static int listed(const char *name)
{
    int type = NONE;
    DIR *directory = opendir(top);
    if (directory == NULL) return -errno;
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;)
        if (strcmp(entry->d_name, name) == 0) type = entry->d_type;
    closedir(directory);
    return type;
}

static void expect(const char *what, int found, int wanted)
{
    if (found != wanted) printf("round %d, %s: %d and not %d\n", round_number, what, found, wanted);
}

static int result(int returned)
{
    return returned == 0 ? 0 : -errno;
}

static int make(const char *path)
{
    int fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
    return fd < 0 ? -errno : result(close(fd));
}

static void file(void)
{
    expect("make a file", make(at("name")), 0);
    expect("made file", listed("name"), DT_REG);
    expect("rename it", result(rename(at("name"), at("other"))), 0);
    expect("its old name", listed("name"), NONE);
    expect("its new name", listed("other"), DT_REG);
    expect("unlink it", result(unlink(at("other"))), 0);
    expect("unlinked file", listed("other"), NONE);
}

static void directory(void)
{
    struct stat status;
    expect("make a directory", result(mkdir(at("name"), 0750)), 0);
    expect("look at it", result(lstat(at("name"), &status)), 0);
    expect("its mode", status.st_mode, S_IFDIR | 0750);
    expect("made directory", listed("name"), DT_DIR);
    expect("make a file in it", make(at("name/in")), 0);
    expect("remove it full", result(rmdir(at("name"))), -ENOTEMPTY);
    expect("rename it", result(rename(at("name"), at("other"))), 0);
    expect("its old name", listed("name"), NONE);
    expect("its new name", listed("other"), DT_DIR);
    expect("remove it renamed", result(rmdir(at("other"))), -ENOTEMPTY);
    expect("unlink the file in it", result(unlink(at("other/in"))), 0);
    expect("remove it empty", result(rmdir(at("other"))), 0);
    expect("removed directory", listed("other"), NONE);
}

static void link_in_its_place(void)
{
    struct stat status;
    expect("make a link", result(symlink("to", at("other"))), 0);
    expect("made link", listed("other"), DT_LNK);
    expect("unlink it", result(unlink(at("other"))), 0);
    expect("look for it", result(lstat(at("other"), &status)), -ENOENT);
}

int main(int count, char **arguments)
{
    pid_t listers[LISTERS_MAX];
    char name[20];
    if (count != 4) return 2;
    top = arguments[1];
    int rounds = atoi(arguments[2]), lister_count = atoi(arguments[3]);
    umask(022);
    for (int i = 0; i < OTHERS; i++) {
        snprintf(name, sizeof name, "file%d", i);
        expect("make another file", make(at(name)), 0);
    }
    for (int i = 0; i < lister_count; i++)
        if ((listers[i] = fork()) == 0)
            for (;;) listed("");
    for (round_number = 0; round_number < rounds; round_number++) {
        file();
        directory();
        link_in_its_place();
    }
    for (int i = 0; i < lister_count; i++) kill(listers[i], SIGKILL);
    while (wait(NULL) > 0) {}
    return 0;
}
