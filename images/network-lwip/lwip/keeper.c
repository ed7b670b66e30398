/* The keeper: a process of the library's own that has a copy of the stack end of every socket that
 * changes hands.
 *
 * Forked processes have the stack ends of what they inherit, a program that is executed or gets a
 * socket over another has the program's end alone: without a keeper, such a socket would end with
 * the process that made it. So whoever hands one on, by exec or by SCM_RIGHTS, gives its stack end
 * to the application's keeper first, in a note to its doorbell; where there is none, it forks one,
 * as nobody's child. A keeper pumps what nobody else can. It stands in nobody's way: it does not
 * count where direct mode asks who else may wait for a socket. It ends a second after the last
 * of its sockets. Called by processes.c, and through stack.h by the overlay's sendmsg.
 */
#include "keeper.h"
#include "direct.h"
#include "notes.h"
#include "pump.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { TRIES = 200, TRY_MS = 1, LOOK_MS = 1000, LOOKED_AT_ONCE = 256, INHERITED_MAX = 4096 };

enum outcome { GIVEN, NOT_YET, NOBODY };

/* This thread is about to fork a keeper, or what will fork it. */
static bool making;
static pthread_t maker;
bool keeper_next;

bool keeper_is_made(void)
{
    return making && pthread_equal(maker, pthread_self());
}

static uint64_t bit_of(uint16_t slot)
{
    return UINT64_C(1) << (slot % 64);
}

void keeper_mark(uint16_t slot, bool on)
{
    if (on)
        instance->keepers[slot / 64] |= bit_of(slot);
    else
        instance->keepers[slot / 64] &= ~bit_of(slot);
}

bool keeper_has(const struct sock *s)
{
    for (int word = 0; word < HOLDER_WORDS; word++)
        if ((s->holders[word] & instance->keepers[word]) != 0) return true;
    return false;
}

static uint16_t find_keeper(void)
{
    for (uint16_t i = 0; i < instance->process_top; i++)
        if ((instance->keepers[i / 64] & bit_of(i)) && i != me.slot) return i;
    return NO_PROCESS;
}

/* ---- giving --------------------------------------------------------------------------------- */

static bool is_to_be_given(const struct sock *s)
{
    return s != NULL && s->state != ENDED && sock_end(s) >= 0 && !keeper_has(s);
}

static enum outcome send_note(uint16_t keeper, const struct note *note, const int *fds)
{
    struct sockaddr_un to;
    socklen_t length;
    if (!note_address(keeper, &to, &length)) return NOT_YET;
    int failed = note_send(&to, length, note, fds, note->count);
    if (failed == ECONNREFUSED) process_gone(keeper);
    if (failed == ECONNREFUSED || failed == ETOOMANYREFS) return NOBODY;
    if (failed != 0) return NOT_YET;
    for (int i = 0; i < note->count; i++) {
        instance->sockets[note->index[i]]->holders[keeper / 64] |= bit_of(keeper);
        direct_publish(instance->sockets[note->index[i]]);
    }
    return GIVEN;
}

/* Under the lock, from the place where the last attempt stopped. */
static enum outcome give(const cse_socket *list, size_t count, size_t *at)
{
    uint16_t keeper = find_keeper();
    struct note note = {.kind = NOTE_KEEP};
    int fds[NOTE_ITEMS];
    size_t next = *at;
    enum outcome outcome = GIVEN;
    while (outcome == GIVEN && (next < count || note.count > 0)) {
        struct sock *s = next < count ? sock_get(list[next++]) : NULL;
        if (is_to_be_given(s)) {
            if (keeper == NO_PROCESS) return NOBODY;
            fds[note.count] = sock_end(s);
            note.index[note.count] = s->index;
            note.generation[note.count++] = s->generation;
        }
        if (note.count == 0 || (note.count < NOTE_ITEMS && next < count)) continue;
        outcome = send_note(keeper, &note, fds);
        if (outcome == GIVEN) *at = next;
        note.count = 0;
    }
    return outcome;
}

/* Its own child has nothing but the keeper to fork, which so becomes a child of init's: the
 * program shall have no child that it does not know. */
static bool fork_keeper(const cse_socket *list, size_t count)
{
    sigset_t child, saved, pending;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    pthread_sigmask(SIG_BLOCK, &child, &saved);
    sigpending(&pending);
    maker = pthread_self();
    making = true;
    pid_t between = fork();
    if (between == 0) {
        keeper_next = true;
        pid_t keeper = fork();
        if (keeper == 0) keeper_run(list, count);
        process_quit(keeper > 0 ? 0 : 1);
    }
    making = false;
    int status = -1;
    if (between > 0)
        while (waitpid(between, &status, __WALL) < 0 && errno == EINTR) continue;
    if (between > 0 && !sigismember(&pending, SIGCHLD))
        sigtimedwait(&child, NULL, &(struct timespec){0, 0});
    pthread_sigmask(SIG_SETMASK, &saved, NULL);
    return status == 0;
}

void keeper_entrust(const cse_socket *list, size_t count)
{
    size_t at = 0;
    if (count == 0 || me.confined || !instance_running() || getpid() != me.pid) return;
    for (int tries = 0; tries < TRIES; tries++) {
        sigset_t saved;
        instance_lock(&saved);
        enum outcome outcome = me.slot != NO_PROCESS ? give(list, count, &at) : GIVEN;
        instance_unlock(&saved);
        if (outcome == GIVEN) return;
        if (outcome == NOBODY && fork_keeper(list + at, count - at)) return;
        struct timespec pause = {0, TRY_MS * 1000000L};
        syscall(SYS_nanosleep, &pause, NULL);
    }
    trace("%zu sockets change hands without a keeper", count - at);
}

/* ---- what is handed on by exec -------------------------------------------------------------- */

static void look_at(int fd, cse_socket *list, size_t *count)
{
    struct stat status;
    long flags = syscall(SYS_fcntl, fd, F_GETFD);
    if (flags < 0 || (flags & FD_CLOEXEC) || fstat(fd, &status) != 0 || !S_ISSOCK(status.st_mode))
        return;
    const struct sock *s = sock_by_inode(status.st_ino);
    if (is_to_be_given(s)) list[(*count)++] = sock_handle(s);
}

/* Of the numbers from `first` on, those that stay open in the program's hands. */
static size_t find_inherited(int first, cse_socket *list)
{
    struct pollfd open[LOOKED_AT_ONCE];
    struct timespec now = {0, 0};
    size_t count = 0;
    for (int i = 0; i < LOOKED_AT_ONCE; i++) open[i] = (struct pollfd){first + i, 0, 0};
    bool known = syscall(SYS_ppoll, open, (long)LOOKED_AT_ONCE, &now, NULL, 0) >= 0;
    for (int i = 0; i < LOOKED_AT_ONCE; i++)
        if (!known || !(open[i].revents & POLLNVAL)) look_at(first + i, list, &count);
    return count;
}

void keeper_before_exec(void)
{
    cse_socket list[LOOKED_AT_ONCE];
    for (int first = 0; first < INHERITED_MAX; first += LOOKED_AT_ONCE) {
        sigset_t saved;
        instance_lock(&saved);
        bool any = instance->sockets_live > 0;
        size_t count = any ? find_inherited(first, list) : 0;
        instance_unlock(&saved);
        if (!any) return;
        keeper_entrust(list, count);
    }
}

/* ---- the keeper ----------------------------------------------------------------------------- */

/* It did not come: this process had no number for it. */
static void lose(struct sock *s)
{
    s->holders[me.slot / 64] &= ~bit_of(me.slot);
    if (s->owner == me.slot) sock_orphaned(s);
}

/* Stack ends that came for us; what has ended meanwhile is closed. If their last other holder is
 * gone, they are ours to pump already. */
void keeper_take(const struct note *note, const int *fds, size_t count)
{
    for (size_t i = 0; i < LWIP_MAX(count, note->count); i++) {
        uint32_t index = i < note->count ? note->index[i] : SOCKETS_MAX;
        struct sock *s = index < SOCKETS_MAX ? instance->sockets[index] : NULL;
        int fd = i < count ? fds[i] : -1;
        bool wanted = s != NULL && s->generation == note->generation[i] && s->state != ENDED &&
                      sock_end(s) < 0 && me.slot != NO_PROCESS &&
                      (s->holders[me.slot / 64] & bit_of(me.slot)) != 0;
        if (wanted && fd < 0) lose(s);
        if (!wanted && fd >= 0) host->own_close(fd);
        if (!wanted || fd < 0) continue;
        if (me.ends[index].fd > 0) sock_close_end(index);
        me.ends[index] = (struct end){
            .fd = fd, .generation = s->generation, .program_fd = -1, .inode = s->inode};
        if (index >= me.top) me.top = index + 1;
        if (s->owner != me.slot) continue;
        s->adopt = true;
        sock_notify(s);
    }
}

/* Something needs this process: a socket of its own, or all that is left of the instance. */
static bool is_needed(void)
{
    bool alone = true;
    for (uint32_t i = 0; i < instance->socket_top; i++) {
        const struct sock *s = instance->sockets[i];
        if (s != NULL && (s->holders[me.slot / 64] & bit_of(me.slot)) != 0) return true;
    }
    for (uint16_t i = 0; i < instance->process_top && alone; i++)
        alone = i == me.slot || instance->processes[i].used == 0;
    return alone && (instance->sockets_live > 0 || tcp_unfinished());
}

/* What else the process that forked it has is no concern of this one. */
static void keep_only(const cse_socket *list, size_t count)
{
    for (uint32_t i = 0; i < me.top; i++) {
        struct sock *s = instance->sockets[i];
        bool wanted = false;
        if (s == NULL || sock_end(s) < 0 || s->owner == me.slot || me.slot == NO_PROCESS) continue;
        for (size_t at = 0; at < count && !wanted; at++) wanted = list[at] == sock_handle(s);
        if (wanted) continue;
        s->holders[me.slot / 64] &= ~bit_of(me.slot);
        direct_publish(s);
        sock_close_end(i);
    }
}

/* No signal that the program's group gets ends it: it lives as long as its sockets. */
void keeper_run(const cse_socket *list, size_t count)
{
    struct rlimit limit;
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    prctl(PR_SET_NAME, "cse-keeper");
    syscall(SYS_chdir, "/");
    host->close_all_but_own();
    if (syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, &limit, NULL);
    }
    instance_lock(NULL);
    keep_only(list, count);
    instance_unlock(NULL);
    for (bool needed = true; needed;) {
        struct timespec pause = {LOOK_MS / 1000, LOOK_MS % 1000 * 1000000L};
        if (me.pump_runs)
            syscall(SYS_nanosleep, &pause, NULL);
        else
            pump_once(LOOK_MS);
        instance_lock(NULL);
        needed = me.slot != NO_PROCESS && is_needed();
        if (!needed) process_leave(); /* whoever gives from now on finds another */
        instance_unlock(NULL);
    }
    process_quit(0);
}
