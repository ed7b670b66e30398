/* Symbol binding: finds the definition of a libc function that comes after this library.
 *
 * Called through the libc() macro of core.h, at the first use of each symbol at each place. No
 * lock: dlsym is thread-safe, a forked child may find its parent's thread in here, and binding
 * twice stores the same address.
 */
#include "core.h"

#include <dlfcn.h>
#include <signal.h>
#include <unistd.h>

CSE_BEFORE_SANITIZERS

void *cse_next(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

void *cse_bind(void **slot, const char *name)
{
    void *found = cse_next(name);
    if (found == NULL) {
        /* Every caller passes a symbol of the libc that this build was linked against. */
        cse_trace("no definition of %s", name);
        __builtin_trap();
    }
    __atomic_store_n(slot, found, __ATOMIC_RELAXED);
    return found;
}

CSE_BEFORE_SANITIZERS_END
