/* The interposition core: what every overlay needs and no overlay should write again.
 *
 * Linked statically, hidden, into each overlay (libcse-net.so, libcse-fs.so). Nothing in here
 * runs before it is called; nothing keeps a descriptor number that the program may see, calls
 * exit, or takes a lock that fork could leave held.
 */
#ifndef CSE_CORE_H
#define CSE_CORE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Marks a function that takes the place of libc's in the program. */
#define CSE_EXPORT __attribute__((visibility("default")))

/* A sanitizer's own start-up calls wrapped functions before its shadow memory exists: files with
 * such wrappers, and what they call, are left out of instrumentation from this line on. */
#if defined(__clang__)
// clang-format off
#define CSE_BEFORE_SANITIZERS                                                                      \
    _Pragma("clang attribute push(__attribute__((no_sanitize(\"address\", \"undefined\"))), apply_to = function)")
// clang-format on
#define CSE_BEFORE_SANITIZERS_END _Pragma("clang attribute pop")
#else
#define CSE_BEFORE_SANITIZERS
#define CSE_BEFORE_SANITIZERS_END
#endif

/* ---- bind.c: the next definition of a symbol ------------------------------------------- */

/* The definition of `name` that comes after this library: `libc(close)(fd)`. Bound at first
 * use, without a lock (two threads may bind at once and store the same value). */
#define libc(name)                                                                                 \
    ({                                                                                             \
        static void *cse_slot_;                                                                    \
        void *cse_f_ = __atomic_load_n(&cse_slot_, __ATOMIC_RELAXED);                              \
        (__typeof__(&name))(cse_f_ ? cse_f_ : cse_bind(&cse_slot_, #name));                        \
    })
/* For symbols that this build's headers do not declare: give the type. */
#define libc_as(type, name)                                                                        \
    ({                                                                                             \
        static void *cse_slot_;                                                                    \
        void *cse_f_ = __atomic_load_n(&cse_slot_, __ATOMIC_RELAXED);                              \
        (type)(cse_f_ ? cse_f_ : cse_bind(&cse_slot_, name));                                      \
    })
void *cse_bind(void **slot, const char *name);
/* NULL where no later library defines it. */
void *cse_next(const char *name);

/* ---- settings.c: from the environment, else from the run directory ---------------------- */

/* The directory with settings and broker socket: $CSE_RUN_DIR, else /run/cse. */
const char *cse_run_dir(void);
/* Loads <run dir>/<kind>.conf once. Lines `key=value`; nested keys are joined with dots,
 * list members numbered from 0 (`mounts.0.path=/srv`); `%XX` escapes bytes. */
void cse_settings_load(const char *kind);
/* The kind given to cse_settings_load. */
const char *cse_settings_kind(void);
/* $CSE_<KIND>_<KEY> (upper case, dots become underscores) where set, else the file's value, else
 * NULL. The text lives until the process ends. */
const char *cse_setting(const char *key);
long cse_setting_number(const char *key, long otherwise);
/* Calls `each` for every key of the file that starts with `prefix`, in file order. */
void cse_settings_each(const char *prefix, void (*each)(const char *key, const char *value, void *),
                       void *context);

/* ---- log.c: the trace log, to the file $CSE_TRACE; errno is kept ------------------------- */

extern int cse_trace_on; /* -1 unknown, 0 off, 1 on */
#define cse_trace(...)                                                                             \
    do {                                                                                           \
        if (__builtin_expect(cse_trace_on != 0, 0)) cse_trace_(__func__, __VA_ARGS__);             \
    } while (0)
void cse_trace_(const char *function, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* ---- escape.c: calls that an overlay could not serve, counted for the whole application -- */

/* Counts one call of `what` ("socket AF_NETLINK") in <run dir>/data/escapes.<kind>, a table
 * shared by all processes of the application and read by the agent. At most 40 bytes count. */
void cse_escape(const char *what);

/* ---- ownfd.c: descriptors of the library, out of the program's way ----------------------- */

/* Moves `fd` to a high number with close-on-exec and protects it from the program's close,
 * dup2, close_range and closefrom. Returns the new number, or -1 with errno (`fd` is closed). */
int cse_own_fd(int fd);
void cse_own_close(int fd);
/* Whether few numbers are left, as far as `fd`, the program's newest and so its highest but for
 * gaps, can tell. */
bool cse_own_crowded(int fd);
bool cse_is_own_fd(int fd);

/* ---- vfork.c: whose memory this is -------------------------------------------------------- */

/* True in a child that runs in its parent's memory. What it does to its descriptors is its own
 * affair: tables of the parent's are not to change. */
bool cse_in_vfork_child(void);
/* From now on false is the answer, without a system call, which a filter might forbid. */
extern bool cse_vfork_unasked;

/* ---- fdtable.c: what the overlay knows of the program's descriptors ----------------------- */

/* The kernel object behind a descriptor; 0/0 where there is none. Never reused while open. */
struct cse_identity {
    uint64_t device;
    uint64_t inode;
};
struct cse_identity cse_identity_of(int fd);

/* A cached answer to "is this descriptor one of ours?". `value` 0 means "known not to be";
 * lookup returns false when nothing is known. Entries die when the program closes or replaces
 * the descriptor through a wrapped call (cse_fd_forget bumps the slot's generation); closes
 * that no overlay sees are found because a positive answer is valid for one identity only. */
bool cse_fd_lookup(int fd, uintptr_t *value, uint32_t *generation);
/* Stores only while the slot is still of `generation` (0: whatever it is). */
void cse_fd_remember(int fd, uint32_t generation, struct cse_identity identity, uintptr_t value);
void cse_fd_forget(int fd);
/* Changes whenever the number changes hands, once something was remembered of it. */
uint32_t cse_fd_generation(int fd);
/* The remembered answer as it is, without a look at the kernel: for calls on the data path. */
bool cse_fd_recall(int fd, uintptr_t *value);
/* No higher number was ever remembered. */
int cse_fd_last(void);
void cse_fd_forget_range(unsigned first, unsigned until);
void cse_fd_copy(int from, int to);

/* An overlay that has something to do when one of its descriptors is closed or replaced, in any way
 * but exec and exit: called when that is done, with the value that was remembered of it. */
extern void (*cse_after_close)(uintptr_t value);

/* fdguard.c defines the program's close, dup*, close_range, closefrom, fcntl and *rlimit: it
 * protects own descriptors and keeps this table true. Linked into every overlay as it is. */

/* ---- broker.c: the application's socket to the agent -------------------------------------- */

enum { CSE_BROKER_MESSAGE_MAX = 4096, CSE_BROKER_FDS_MAX = 8 };
struct cse_message {
    char text[CSE_BROKER_MESSAGE_MAX]; /* NUL-terminated */
    int fds[CSE_BROKER_FDS_MAX];
    int fd_count;
};
/* Connects to <run dir>/broker.sock. Waits up to `timeout_ms` for it to appear (-1: for ever).
 * Returns a protected descriptor, or -1 with errno. */
int cse_broker_connect(int timeout_ms);
/* One message, with descriptors; false when the broker is gone. Never raises SIGPIPE. */
bool cse_broker_send(int broker, const char *text, const int *fds, int fd_count);
/* One message; 1 received, 0 timed out, -1 broker gone. Received descriptors are protected. */
int cse_broker_receive(int broker, struct cse_message *message, int timeout_ms);
/* Tells the agent what the user has to know ("… is not an archive"): an event of the application.
 * On a connection of its own, for elements that need none otherwise. Waits until it is recorded, at
 * most 200 ms; nothing happens where the broker is away. */
void cse_tell(const char *text);
/* The same, and a line of the trace and of <run dir>/data/<kind>.errors, which is there without an
 * agent too. */
void cse_report(const char *text);
/* The value of `key=` in a message of space-separated words, copied to `out`; false if absent. */
bool cse_message_field(const char *text, const char *key, char *out, size_t size);

#endif
