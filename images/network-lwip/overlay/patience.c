/* Whether calls on a private socket wait, and for how long.
 *
 * O_NONBLOCK and the two time-outs are kept by the kernel, with the pair's end, and a thread that
 * is about to sleep for a socket in direct mode would have to ask for them each time. What it has
 * learnt is kept here, by socket, until a call that changes them is seen: fcntl, ioctl, setsockopt,
 * also by number. A process that has a descriptor of the same socket could change them unseen: if
 * it was forked, the socket is relayed, which forgets; if it was executed or sent one, the stack
 * says so (CSE_SHARED), and it is asked each time. Called by stream.c and by the calls named.
 */
#include "patience.h"
#include "wait.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/time.h>

enum { SOCKETS = 65536 };

/* A word for each socket: generation << 32 | changes | these. The number of changes tells that one
 * came while somebody asked. */
enum { BLOCKS = 1, LIMITED = 2, CHANGE = 4 };
static uint64_t *table; /* SOCKETS of them, touched lazily */

/* A forked child shares its descriptors with its parent. */
static void after_fork(void)
{
    if (table != NULL) madvise(table, SOCKETS * sizeof *table, MADV_DONTNEED);
}

static uint64_t *place_of(cse_socket s)
{
    uint64_t *there = __atomic_load_n(&table, __ATOMIC_ACQUIRE), *none = NULL;
    if (there == NULL) {
        there = mmap(NULL, SOCKETS * sizeof *there, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (there == MAP_FAILED) return NULL;
        if (__atomic_compare_exchange_n(&table, &none, there, false, __ATOMIC_ACQ_REL,
                                        __ATOMIC_ACQUIRE)) {
            pthread_atfork(NULL, NULL, after_fork);
        } else {
            munmap(there, SOCKETS * sizeof *there);
            there = none;
        }
    }
    return &there[(((uint32_t)s >> 1) - 1) % SOCKETS];
}

static uint64_t load(const uint64_t *place)
{
    return place != NULL ? __atomic_load_n(place, __ATOMIC_ACQUIRE) : 0;
}

/* What is known of this socket, and not of a former one in its place. */
static uint64_t known_of(cse_socket s, uint64_t word)
{
    return word >> 32 == s >> 32 ? word : (s >> 32) << 32;
}

/* After the call that may have changed it. */
void patience_forget(cse_socket s)
{
    uint64_t *there = __atomic_load_n(&table, __ATOMIC_ACQUIRE);
    if (s == 0 || CSE_SOCKET_IS_DATAGRAM(s) || there == NULL) return;
    uint64_t *place = place_of(s), word = load(place), changed;
    do {
        uint64_t known = known_of(s, word) & ~(uint64_t)(BLOCKS | LIMITED);
        changed = (s >> 32) << 32 | (uint32_t)(known + CHANGE);
    } while (!__atomic_compare_exchange_n(place, &word, changed, false, __ATOMIC_ACQ_REL,
                                          __ATOMIC_ACQUIRE));
}

/* Others may change it: a relayed socket's other holders, and whoever it was handed to. */
static bool is_shared(cse_socket s)
{
    return (net_running()->readiness(s) & (CSE_SHARED | CSE_READY_RELAYED)) != 0;
}

bool patience_is_known(cse_socket s)
{
    return (known_of(s, load(place_of(s))) & BLOCKS) != 0 && !is_shared(s);
}

static uint64_t limit_ns(int fd, int option)
{
    struct timeval limit = {0, 0};
    socklen_t size = sizeof limit;
    if (libc(getsockopt)(fd, SOL_SOCKET, option, &limit, &size) != 0) return 0;
    return (uint64_t)limit.tv_sec * 1000000000u + (uint64_t)limit.tv_usec * 1000u;
}

/* The kernel's answer, which is kept: BLOCKS, LIMITED. */
static uint64_t ask(int fd, cse_socket s)
{
    uint64_t *place = place_of(s), word = load(place), before = known_of(s, word);
    bool shared = is_shared(s);
    if (before & BLOCKS && !shared) return before;
    if (libc(fcntl)(fd, F_GETFL) & O_NONBLOCK) return 0;
    uint64_t now = before | BLOCKS;
    if (limit_ns(fd, SO_RCVTIMEO) != 0 || limit_ns(fd, SO_SNDTIMEO) != 0) now |= LIMITED;
    if (place != NULL && !shared)
        __atomic_compare_exchange_n(place, &word, now, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
    return now;
}

bool patience_nonblocking(int fd, cse_socket s)
{
    return !(ask(fd, s) & BLOCKS);
}

bool patience_of(int fd, cse_socket s, int option, uint64_t *deadline_ns)
{
    uint64_t word = ask(fd, s);
    uint64_t limit = word & LIMITED ? limit_ns(fd, option) : 0;
    *deadline_ns = limit != 0 ? wait_now_ns() + limit : WAIT_FOREVER;
    return (word & BLOCKS) != 0;
}

/* fdguard.c has carried out F_SETFL. */
void cse_flags_set(int fd)
{
    patience_forget(net_find_data(fd));
}
