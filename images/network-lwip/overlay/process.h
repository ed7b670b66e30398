/* What process.c lends spawn.c: the environment that programs are started with. */
#ifndef CSE_PROCESS_H
#define CSE_PROCESS_H

#include <alloca.h>
#include <stddef.h>
#include <string.h>

/* Variables without which a program would be without this library. */
enum { PROCESS_KEPT = 3 };

size_t process_variables(char *const environment[]);
/* A copy of `count` variables in `room`, with those of ours that are missing. */
char **process_complete(char *const environment[], size_t count, char **room);

/* In the caller's frame: a child of vfork must not allocate. */
#define COMPLETE(environment)                                                                      \
    ({                                                                                             \
        size_t count_ = process_variables(environment);                                            \
        process_complete(environment, count_,                                                      \
                         alloca((count_ + PROCESS_KEPT + 1) * sizeof(char *)));                    \
    })

#endif
