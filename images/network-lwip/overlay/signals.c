/* The program's signal handlers, held back while a thread is inside the stack.
 *
 * A handler that finds its own thread inside the stack could never get the lock. Blocking all
 * signals for each call costs two system calls; instead the program's handlers are entered through
 * a trampoline. If that finds the thread inside, it blocks the signal in the interrupted context,
 * sends it to the thread once more and returns; on leaving, the thread unblocks it and the handler
 * runs then. The trampoline also knows whether the handler that interrupted a wait wants calls
 * restarted (SA_RESTART), which the kernel says of none of the calls we sleep in.
 *
 * The program sees its own actions: what it set is kept here and given back. Faults (SIGSEGV and
 * the like, raised by the kernel) go straight to their handler.
 */
#include "net.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#ifndef NSIG
#define NSIG 65
#endif

struct state {
    int inside;
    bool restarts; /* what the last handler that ran wants */
    bool postponed;
    sigset_t later;
};
static __thread struct state here __attribute__((tls_model("initial-exec")));

/* As the program set them. A vfork child has others: what it sets is none of ours. */
static struct sigaction actions[NSIG];

typedef void handler_with_info(int, siginfo_t *, void *);

CSE_BEFORE_SANITIZERS

void net_hold_signals(void)
{
    here.inside++;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

void net_release_signals(void)
{
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    if (--here.inside > 0 || !here.postponed) return;
    int saved_errno = errno;
    sigset_t later = here.later;
    sigemptyset(&here.later);
    here.postponed = false;
    libc(pthread_sigmask)(SIG_UNBLOCK, &later, NULL);
    errno = saved_errno;
}

bool net_inside(void)
{
    return here.inside > 0;
}

bool net_signal_restarts(void)
{
    return here.restarts;
}

static bool is_fault(int number, const siginfo_t *info)
{
    if (info->si_code <= 0 || info->si_code == SI_KERNEL) return false;
    return number == SIGSEGV || number == SIGBUS || number == SIGILL || number == SIGFPE ||
           number == SIGTRAP || number == SIGSYS;
}

static void postpone(int number, siginfo_t *info, ucontext_t *context)
{
    if (!here.postponed) sigemptyset(&here.later);
    here.postponed = true;
    sigaddset(&here.later, number);
    sigaddset(&context->uc_sigmask, number);
    libc(syscall)(SYS_rt_tgsigqueueinfo, getpid(), (long)libc(syscall)(SYS_gettid), number, info);
}

static void enter(int number, siginfo_t *info, void *context)
{
    int saved_errno = errno;
    if (here.inside > 0 && !is_fault(number, info)) {
        postpone(number, info, context);
        errno = saved_errno;
        return;
    }
    struct sigaction action = actions[number];
    here.restarts = (action.sa_flags & SA_RESTART) != 0;
    if (action.sa_flags & (int)SA_RESETHAND) {
        struct sigaction none = {.sa_handler = SIG_DFL};
        actions[number] = none;
        libc(sigaction)(number, &none, NULL);
    }
    if (action.sa_flags & SA_NODEFER && !sigismember(&action.sa_mask, number)) {
        sigset_t this;
        sigemptyset(&this);
        sigaddset(&this, number);
        libc(pthread_sigmask)(SIG_UNBLOCK, &this, NULL);
    }
    errno = saved_errno;
    if (action.sa_handler == SIG_DFL || action.sa_handler == SIG_IGN) return; /* changed just now */
    ((handler_with_info *)(void *)action.sa_handler)(number, info, context);
}

CSE_EXPORT int sigaction(int number, const struct sigaction *action, struct sigaction *old)
{
    struct sigaction before, ours;
    bool known = number > 0 && number < NSIG && !cse_in_vfork_child();
    if (known) before = actions[number];
    if (known && action != NULL) {
        ours = *action;
        bool handler = action->sa_handler != SIG_DFL && action->sa_handler != SIG_IGN;
        if (handler) {
            ours.sa_sigaction = enter;
            ours.sa_flags |= SA_SIGINFO;
            ours.sa_flags &= ~((int)SA_RESETHAND | SA_NODEFER);
        }
        if (handler) actions[number] = *action;
        if (libc(sigaction)(number, &ours, old) != 0) {
            actions[number] = before;
            return -1;
        }
        if (!handler) actions[number] = *action;
    } else if (libc(sigaction)(number, action, old) != 0) {
        return -1;
    }
    if (known && old != NULL && old->sa_sigaction == enter) *old = before;
    return 0;
}

static sighandler_t set_handler(int number, sighandler_t handler, int flags)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags}, old;
    if (handler == SIG_ERR) {
        errno = EINVAL;
        return SIG_ERR;
    }
    return sigaction(number, &action, &old) == 0 ? old.sa_handler : SIG_ERR;
}

CSE_EXPORT sighandler_t signal(int number, sighandler_t handler)
{
    return set_handler(number, handler, SA_RESTART);
}

#ifdef __GLIBC__
CSE_EXPORT sighandler_t bsd_signal(int number, sighandler_t handler)
{
    return set_handler(number, handler, SA_RESTART);
}

CSE_EXPORT sighandler_t ssignal(int number, sighandler_t handler)
{
    return set_handler(number, handler, SA_RESTART);
}

CSE_EXPORT sighandler_t sysv_signal(int number, sighandler_t handler)
{
    return set_handler(number, handler, (int)SA_RESETHAND | SA_NODEFER);
}

CSE_EXPORT sighandler_t __sysv_signal(int number, sighandler_t handler)
{
    return set_handler(number, handler, (int)SA_RESETHAND | SA_NODEFER);
}
#endif

CSE_EXPORT int siginterrupt(int number, int interrupts)
{
    struct sigaction action;
    if (sigaction(number, NULL, &action) != 0) return -1;
    action.sa_flags = interrupts ? action.sa_flags & ~SA_RESTART : action.sa_flags | SA_RESTART;
    return sigaction(number, &action, NULL);
}

CSE_BEFORE_SANITIZERS_END
