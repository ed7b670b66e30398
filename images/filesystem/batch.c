/* `sync: batch`: fsync returns at once, the disk is asked at most every so many milliseconds.
 *
 * A synced file is kept by a descriptor of our own until a thread of ours has synced it; the thread
 * is there only while something waits. At exit, exec and the end of the process, what waits is
 * synced first. An error that the disk gives then is given to the next fsync. A forked child begins
 * with nothing: what waited is its parent's. Called by calls_sync.c.
 */
#include "calls.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { WAITING_MAX = 128, STACK_BYTES = 256 << 10 };

CSE_BEFORE_SANITIZERS

static struct {
    pid_t holder; /* process that is inside; another one's was left behind by fork */
    pid_t owner;  /* process that the rest is about */
    int count, error;
    bool thread;
    struct waiting {
        int fd;
        struct cse_identity identity;
    } files[WAITING_MAX];
} batch;

static void lock(pid_t self)
{
    for (;;) {
        pid_t holder = __atomic_load_n(&batch.holder, __ATOMIC_RELAXED);
        if (holder == self) {
            raw(SYS_sched_yield); /* a thread of ours, for some microseconds */
        } else if (__atomic_compare_exchange_n(&batch.holder, &holder, self, false,
                                               __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
            break;
        }
    }
    if (batch.owner == self) return;
    for (int i = 0; i < batch.count; i++) cse_own_close(batch.files[i].fd);
    batch.count = 0;
    batch.error = 0;
    batch.thread = false;
    batch.owner = self;
}

static void unlock(void)
{
    __atomic_store_n(&batch.holder, 0, __ATOMIC_RELEASE);
}

/* Syncs what waits now. */
static void sync_waiting(pid_t self)
{
    struct waiting files[WAITING_MAX];
    lock(self);
    int count = batch.count, error = 0;
    memcpy(files, batch.files, sizeof *files * (size_t)count);
    batch.count = 0;
    unlock();
    for (int i = 0; i < count; i++) {
        int failed = fs_sync_now(files[i].fd);
        if (failed != 0) error = -failed;
        cse_own_close(files[i].fd);
    }
    if (error != 0) {
        lock(self);
        batch.error = error;
        unlock();
    }
}

static void *work(void *context)
{
    pid_t self = (pid_t)raw(SYS_getpid);
    long ms = (long)(intptr_t)context;
    struct timespec pause = {ms / 1000, ms % 1000 * 1000000};
    for (;;) {
        raw(SYS_nanosleep, &pause, NULL); /* no signal comes here */
        sync_waiting(self);
        lock(self);
        bool idle = batch.count == 0;
        if (idle) batch.thread = false;
        unlock();
        if (idle) return NULL;
    }
}

static bool start_thread(int ms)
{
    sigset_t all, before;
    pthread_t thread;
    pthread_attr_t attributes;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    // NOLINTNEXTLINE(performance-no-int-to-ptr): a number is all that it is given
    bool started = pthread_create(&thread, &attributes, work, (void *)(intptr_t)ms) == 0;
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return started;
}

bool fs_batch_take(int fd, int ms, int *error)
{
    struct cse_identity identity = cse_identity_of(fd);
    pid_t self = (pid_t)raw(SYS_getpid);
    long flags = raw(SYS_fcntl, fd, F_GETFL, 0);
    if (identity.inode == 0 || flags < 0 || (flags & O_PATH)) return false;
    lock(self);
    bool start = !batch.thread, known = false;
    *error = batch.error;
    batch.error = 0;
    for (int i = 0; i < batch.count && !known; i++)
        known = batch.files[i].identity.inode == identity.inode &&
                batch.files[i].identity.device == identity.device;
    bool room = batch.count < WAITING_MAX;
    int copy = !known && room ? (int)raw(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 0) : -1;
    if (copy >= 0) copy = cse_own_fd(copy);
    if (copy >= 0) batch.files[batch.count++] = (struct waiting){copy, identity};
    if (known || copy >= 0) batch.thread = true;
    unlock();
    if (!known && copy < 0) return false;
    if (start && !start_thread(ms)) fs_batch_finish();
    return true;
}

void fs_batch_finish(void)
{
    pid_t self = (pid_t)raw(SYS_getpid);
    if (__atomic_load_n(&batch.owner, __ATOMIC_RELAXED) != self || batch.count == 0) return;
    sync_waiting(self);
}

CSE_BEFORE_SANITIZERS_END
