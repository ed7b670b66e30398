/* What fdguard.c needs to know of ownfd.c. */
#ifndef CSE_OWNFD_H
#define CSE_OWNFD_H

#include <sys/resource.h>

/* The soft limit of open files that the program set or inherited, and what we raised it to; 0
 * where it was not raised. `first`: the lowest number a descriptor of ours gets. */
struct cse_own_limits {
    rlim_t program_soft;
    rlim_t raised_soft;
    int first;
};
extern struct cse_own_limits cse_own_limits;

/* The lowest own descriptor that is at least `fd`, or -1. */
int cse_own_next(int fd);

/* What an overlay maps beside the program, in bytes: RLIMIT_AS as the program sets it is raised by
 * that. */
extern const rlim_t cse_own_space __attribute__((weak));

#endif
