/* What an overlay knows of the program's descriptors, by number and generation.
 *
 * A cache, not the truth: the truth is the identity (device, inode) of the kernel object behind
 * the number. fdguard.c forgets a number whenever the program closes or replaces it through a
 * call that we see; a close that nobody sees (fclose inside libc, a raw system call) leaves a stale
 * entry, which is found because a positive answer is checked against the identity each time. A
 * child of vfork, which has other descriptors in the same memory, changes nothing here.
 */
#include "core.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SLOTS = 1 << 20 };

struct slot {
    uint32_t generation; /* bumped whenever the number changes hands; starts at 0 */
    uint32_t known;
    uintptr_t value;
    struct cse_identity identity;
};

static struct slot *slots; /* SLOTS of them, touched lazily */
static int last = -1;

CSE_BEFORE_SANITIZERS

static struct slot *slot_of(int fd)
{
    if (fd < 0 || fd >= SLOTS) return NULL;
    struct slot *table = __atomic_load_n(&slots, __ATOMIC_ACQUIRE);
    if (table == NULL) {
        size_t size = SLOTS * sizeof *table;
        int saved_errno = errno;
        table = mmap(NULL, size, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        errno = saved_errno;
        if (table == MAP_FAILED) return NULL;
        struct slot *expected = NULL;
        if (!__atomic_compare_exchange_n(&slots, &expected, table, false, __ATOMIC_ACQ_REL,
                                         __ATOMIC_ACQUIRE)) {
            munmap(table, size);
            table = expected;
        }
    }
    return &table[fd];
}

struct cse_identity cse_identity_of(int fd)
{
    struct stat status;
    int saved_errno = errno;
    struct cse_identity identity = {0, 0};
    if (libc(syscall)(SYS_fstat, fd, &status) == 0)
        identity = (struct cse_identity){(uint64_t)status.st_dev, (uint64_t)status.st_ino};
    errno = saved_errno;
    return identity;
}

bool cse_fd_lookup(int fd, uintptr_t *value, uint32_t *generation)
{
    struct slot *slot = slot_of(fd);
    if (slot == NULL) return false;
    uint32_t now = __atomic_load_n(&slot->generation, __ATOMIC_ACQUIRE);
    if (generation != NULL) *generation = now + 1; /* 0 is left to mean "whichever" */
    if (!__atomic_load_n(&slot->known, __ATOMIC_ACQUIRE)) return false;
    uintptr_t answer = __atomic_load_n(&slot->value, __ATOMIC_RELAXED);
    if (answer != 0) {
        struct cse_identity identity = cse_identity_of(fd);
        if (identity.inode != slot->identity.inode || identity.device != slot->identity.device) {
            cse_fd_forget(fd);
            return false;
        }
    }
    *value = answer;
    return __atomic_load_n(&slot->generation, __ATOMIC_ACQUIRE) == now;
}

uint32_t cse_fd_generation(int fd)
{
    struct slot *table = __atomic_load_n(&slots, __ATOMIC_ACQUIRE);
    if (table == NULL || fd < 0 || fd >= SLOTS) return 0;
    return __atomic_load_n(&table[fd].generation, __ATOMIC_ACQUIRE);
}

bool cse_fd_recall(int fd, uintptr_t *value)
{
    struct slot *table = __atomic_load_n(&slots, __ATOMIC_ACQUIRE);
    if (table == NULL || fd < 0 || fd >= SLOTS) return false;
    uint32_t now = __atomic_load_n(&table[fd].generation, __ATOMIC_ACQUIRE);
    if (!__atomic_load_n(&table[fd].known, __ATOMIC_ACQUIRE)) return false;
    *value = __atomic_load_n(&table[fd].value, __ATOMIC_RELAXED);
    return __atomic_load_n(&table[fd].generation, __ATOMIC_ACQUIRE) == now;
}

void cse_fd_remember(int fd, uint32_t generation, struct cse_identity identity, uintptr_t value)
{
    struct slot *slot = slot_of(fd);
    if (slot == NULL || cse_in_vfork_child()) return;
    if (generation != 0 && __atomic_load_n(&slot->generation, __ATOMIC_ACQUIRE) != generation - 1)
        return;
    int former = __atomic_load_n(&last, __ATOMIC_RELAXED);
    while (former < fd && !__atomic_compare_exchange_n(&last, &former, fd, true, __ATOMIC_RELAXED,
                                                       __ATOMIC_RELAXED)) {}
    __atomic_store_n(&slot->known, 0, __ATOMIC_RELEASE);
    slot->identity = identity;
    __atomic_store_n(&slot->value, value, __ATOMIC_RELAXED);
    __atomic_store_n(&slot->known, 1, __ATOMIC_RELEASE);
}

/* One that was never looked at leaves its page untouched. */
static bool is_touched(const struct slot *slot)
{
    return __atomic_load_n(&slot->known, __ATOMIC_RELAXED) != 0 ||
           __atomic_load_n(&slot->generation, __ATOMIC_RELAXED) != 0;
}

static void forget(struct slot *slot)
{
    __atomic_store_n(&slot->known, 0, __ATOMIC_RELEASE);
    __atomic_add_fetch(&slot->generation, 1, __ATOMIC_ACQ_REL);
}

void cse_fd_forget(int fd)
{
    struct slot *table = __atomic_load_n(&slots, __ATOMIC_ACQUIRE);
    if (table == NULL || fd < 0 || fd >= SLOTS || !is_touched(&table[fd])) return;
    if (!cse_in_vfork_child()) forget(&table[fd]);
}

int cse_fd_last(void)
{
    return __atomic_load_n(&last, __ATOMIC_RELAXED);
}

void cse_fd_forget_range(unsigned first, unsigned until)
{
    struct slot *table = __atomic_load_n(&slots, __ATOMIC_ACQUIRE);
    int most = cse_fd_last();
    if (table == NULL || most < 0 || first > (unsigned)most || cse_in_vfork_child()) return;
    for (unsigned fd = first; fd <= until && fd <= (unsigned)most; fd++)
        if (is_touched(&table[fd])) forget(&table[fd]);
}

void cse_fd_copy(int from, int to)
{
    uintptr_t value;
    struct slot *table = __atomic_load_n(&slots, __ATOMIC_ACQUIRE);
    cse_fd_forget(to);
    if (table != NULL && to >= 0 && cse_fd_lookup(from, &value, NULL))
        cse_fd_remember(to, 0, table[from].identity, value);
}

CSE_BEFORE_SANITIZERS_END
