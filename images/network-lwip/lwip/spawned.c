/* Sockets that a program inherits which is started without a fork: posix_spawn, system, popen, and
 * whatever calls vfork or clone with the parent's memory and then exec.
 *
 * libc's own functions are told by the overlay before they start anything, in the parent; there it
 * is as before an exec, but that this process stays. A child of vfork calls exec itself. Nobody but
 * it knows what it inherits, and it must not touch the state of a process that it is not, nor take
 * a lock as the thread of its parent that waits for it. So it sends the inodes of the sockets that
 * it has to its parent's doorbell, with the write end of a pipe; the pump there, which goes on,
 * gives them to the keeper and closes the pipe. Called by processes.c, notes.c and pump.c.
 */
#include "direct.h"
#include "keeper.h"
#include "notes.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { ANSWER_S = 3, LOOKED_AT_ONCE = 256, INHERITED_MAX = 4096, ASKING_MAX = 64 };

/* ---- in the child of vfork: system calls and its own stack ---------------------------------- */

struct asking {
    struct note note;
    int answer;
    bool failed;
};

static void ask(struct asking *asking)
{
    struct sockaddr_un to;
    socklen_t length;
    if (asking->note.count == 0 || asking->failed) return;
    asking->failed = !note_address(me.slot, &to, &length) ||
                     note_send(&to, length, &asking->note, &asking->answer, 1) != 0;
    asking->note.count = 0;
}

static void ask_for(struct asking *asking, int fd)
{
    struct stat status;
    long flags = syscall(SYS_fcntl, fd, F_GETFD);
    if (flags < 0 || (flags & FD_CLOEXEC) || fstat(fd, &status) != 0 || !S_ISSOCK(status.st_mode))
        return;
    asking->note.index[asking->note.count] = (uint32_t)status.st_ino;
    asking->note.generation[asking->note.count] = (uint32_t)(status.st_ino >> 32);
    if (++asking->note.count == NOTE_ITEMS) ask(asking);
}

static void ask_for_open(struct asking *asking, int first)
{
    struct pollfd open[LOOKED_AT_ONCE];
    for (int i = 0; i < LOOKED_AT_ONCE; i++) open[i] = (struct pollfd){first + i, 0, 0};
    bool known =
        syscall(SYS_ppoll, open, (long)LOOKED_AT_ONCE, &(struct timespec){0, 0}, NULL, 0) >= 0;
    for (int i = 0; i < LOOKED_AT_ONCE; i++)
        if (!known || !(open[i].revents & POLLNVAL)) ask_for(asking, first + i);
}

void spawned_before_exec(void)
{
    struct asking asking = {.note = {.kind = NOTE_HAND_ON}};
    int ends[2];
    bool any = __atomic_load_n(&instance->sockets_live, __ATOMIC_RELAXED) > 0;
    if (!any || me.confined || me.slot == NO_PROCESS || pump_threads() == 0) return;
    if (syscall(SYS_pipe2, ends, O_CLOEXEC) != 0) return;
    asking.answer = ends[1];
    for (int first = 0; first < INHERITED_MAX; first += LOOKED_AT_ONCE)
        ask_for_open(&asking, first);
    ask(&asking);
    syscall(SYS_close, ends[1]);
    /* Hung up when the last note is answered, or the parent is dead. */
    struct pollfd answer = {ends[0], 0, 0};
    struct timespec limit = {ANSWER_S, 0}; /* what is left of it after a signal */
    while (syscall(SYS_ppoll, &answer, 1L, &limit, NULL, 0) < 0 && errno == EINTR) continue;
    syscall(SYS_close, ends[0]);
}

/* ---- in its parent's pump ------------------------------------------------------------------- */

static cse_socket wanted[ASKING_MAX * NOTE_ITEMS];
static size_t wanted_count;
static int answers[ASKING_MAX];
static size_t answer_count;

/* Who waits for its bytes does so at the pair from now on. */
static void hand_on(struct sock *s)
{
    if (s != NULL && s->state != ENDED && sock_end(s) >= 0) direct_stop(s);
}

/* Under the lock; keepers are made without it. */
void spawned_take(const struct note *note, const int *fds, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (i > 0 || fds[i] < 0 || answer_count == ASKING_MAX) {
            if (fds[i] >= 0) host->own_close(fds[i]);
            return;
        }
        answers[answer_count++] = fds[i];
    }
    for (size_t i = 0; i < note->count && wanted_count < ASKING_MAX * NOTE_ITEMS; i++) {
        struct sock *s = sock_by_inode((uint64_t)note->generation[i] << 32 | note->index[i]);
        if (s == NULL) continue;
        hand_on(s);
        wanted[wanted_count++] = sock_handle(s);
    }
}

void spawned_serve(void)
{
    if (answer_count == 0) return;
    keeper_entrust(wanted, wanted_count);
    for (size_t i = 0; i < answer_count; i++) host->own_close(answers[i]);
    wanted_count = answer_count = 0;
}

/* ---- before libc starts a program, in the program's thread ---------------------------------- */

void spawned_before(const cse_socket *also, size_t count)
{
    if (!instance_running() || getpid() != me.pid || me.slot == NO_PROCESS) return;
    keeper_before_exec();
    keeper_entrust(also, count);
    sigset_t saved;
    instance_lock(&saved);
    for (uint32_t i = 0; i < me.top; i++) {
        struct sock *s = instance->sockets[i];
        if (s != NULL && keeper_has(s)) hand_on(s);
    }
    instance_unlock(&saved);
}
