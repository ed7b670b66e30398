/* Whether the calling thread is a child of vfork (or posix_spawn, or clone with the parent's
 * memory).
 *
 * Such a child has descriptors and signal handlers of its own, in the memory of its parent:
 * whatever an overlay keeps about them is its parent's, and must be as it was when the parent goes
 * on. Who the memory belongs to is in a page that the kernel wipes in every child that gets a copy
 * (MADV_WIPEONFORK), however it is made. Asked by fdtable.c, fdguard.c and the overlays.
 */
#include "core.h"

#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif

bool cse_vfork_unasked;

static pid_t unwiped; /* where there is no such page */
static pid_t *owner = &unwiped;

CSE_BEFORE_SANITIZERS

static pid_t self(void)
{
    return (pid_t)libc(syscall)(SYS_getpid);
}

static void own(void)
{
    __atomic_store_n(owner, self(), __ATOMIC_RELAXED);
}

__attribute__((constructor)) static void begin(void)
{
    int saved_errno = errno;
    void *page =
        mmap(NULL, sizeof *owner, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page != MAP_FAILED && madvise(page, sizeof *owner, MADV_WIPEONFORK) == 0) owner = page;
    own();
    pthread_atfork(NULL, NULL, own);
    errno = saved_errno;
}

/* Who is mistaken for the owner makes room at the real one's next question: nobody is its own
 * child's child. */
bool cse_in_vfork_child(void)
{
    if (cse_vfork_unasked) return false;
    pid_t known = __atomic_load_n(owner, __ATOMIC_RELAXED), now = self();
    if (known == now) return false;
    if (known != 0 && (pid_t)libc(syscall)(SYS_getppid) == known) return true;
    own();
    return false;
}

CSE_BEFORE_SANITIZERS_END
