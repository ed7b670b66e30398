/* The overlay's middle: loads and starts the implementation, and knows private descriptors.
 *
 * The implementation is a library of its own, named by the setting `implementation` (default
 * libcse-lwip.so beside this one), opened at the first internet socket: programs that
 * never open one pay for nothing. Called by every other file of the overlay.
 */
#include "netlink.h"
#include "ownfd.h"
#include "wait.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

/* The arena's addresses, and tables that are touched as they are needed. */
const rlim_t cse_own_space = (rlim_t)3 << 29;

static const struct cse_stack *stack;
static bool sockets;            /* this process has or may have private sockets */
static bool confined;           /* by a filter of system calls */
static uint64_t sockets_device; /* of the kernel's socket file system */

int net_fail(int negative)
{
    errno = -negative;
    return -1;
}

void net_escape(const char *what)
{
    cse_settings_load("network"); /* names the table of escapes */
    cse_escape(what);
}

static bool tracing(void)
{
    return cse_trace_on != 0;
}

static void trace_line(const char *function, const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    cse_trace_(function, "%s", text);
}

/* Once: a program tries again and again. */
static void report(const char *what)
{
    static bool told;
    if (!__atomic_exchange_n(&told, true, __ATOMIC_RELAXED)) cse_report(what);
}

static int receive(int broker, void *message, int timeout_ms)
{
    return cse_broker_receive(broker, message, timeout_ms);
}

void closefrom(int first); /* fdguard.c; not all libcs have one */

static void close_all_but_own(void)
{
    closefrom(0);
}

static const struct cse_host host = {
    .own_fd = cse_own_fd,
    .own_close = cse_own_close,
    .crowded = cse_own_crowded,
    .close_all_but_own = close_all_but_own,
    .setting = cse_setting,
    .setting_number = cse_setting_number,
    .trace = trace_line,
    .tracing = tracing,
    .escape = net_escape,
    .report = report,
    .broker_connect = cse_broker_connect,
    .broker_send = cse_broker_send,
    .broker_receive = receive,
    .message_field = cse_message_field,
    .ready = wait_ready,
    .hold_signals = net_hold_signals,
    .release_signals = net_release_signals,
};

/* ---- loading ------------------------------------------------------------------------------- */

/* The file `name` in the directory this library was loaded from. */
static void beside_us(const char *name, char *out, size_t size)
{
    Dl_info info;
    const char *slash = NULL;
    if (dladdr(&host, &info) != 0 && info.dli_fname != NULL) slash = strrchr(info.dli_fname, '/');
    if (slash == NULL || strchr(name, '/') != NULL)
        snprintf(out, size, "%s", name);
    else
        snprintf(out, size, "%.*s/%s", (int)(slash - info.dli_fname), info.dli_fname, name);
}

static const struct cse_stack *load(void)
{
    char path[4096];
    cse_settings_load("network");
    const char *name = cse_setting("implementation");
    beside_us(name != NULL ? name : "libcse-lwip.so", path, sizeof path);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        cse_trace("%s", dlerror());
        return NULL;
    }
    const struct cse_stack *(*open_stack)(const struct cse_host *) =
        (const struct cse_stack *(*)(const struct cse_host *))dlsym(library, "cse_stack_open");
    const struct cse_stack *opened = open_stack != NULL ? open_stack(&host) : NULL;
    return opened != NULL && opened->version == CSE_STACK_VERSION ? opened : NULL;
}

static const struct cse_stack *loaded(void)
{
    static pthread_mutex_t loading = PTHREAD_MUTEX_INITIALIZER;
    const struct cse_stack *there = __atomic_load_n(&stack, __ATOMIC_ACQUIRE);
    if (there != NULL) return there;
    int saved_errno = errno;
    pthread_mutex_lock(&loading);
    if (stack == NULL) __atomic_store_n(&stack, load(), __ATOMIC_RELEASE);
    there = stack;
    pthread_mutex_unlock(&loading);
    errno = there != NULL ? saved_errno : ENETDOWN;
    return there;
}

static const struct cse_stack *start(bool attach_only)
{
    const struct cse_stack *there = loaded();
    if (there == NULL) return NULL;
    int failed = there->running() ? 0 : there->start(attach_only);
    if (failed == 0) return there;
    cse_trace("no instance: %s", strerror(-failed));
    if (!attach_only) net_escape("no network instance");
    errno = -failed;
    return NULL;
}

const struct cse_stack *net_start(void)
{
    return start(false);
}

const struct cse_stack *net_running(void)
{
    const struct cse_stack *there = __atomic_load_n(&stack, __ATOMIC_ACQUIRE);
    return there != NULL && there->running() ? there : NULL;
}

/* ---- descriptors ----------------------------------------------------------------------------- */

/* The overlay tells the stack of closes that it may have to act on. */
static void after_close(uintptr_t s)
{
    if (IS_NETLINK(s)) netlink_closed();
    if (CSE_SOCKET_IS_DATAGRAM(s)) return;
    uint32_t ready = stack->readiness(s);
    if (!(ready & CSE_READY_RELAYED) || ready & CSE_LINGERS)
        stack->closed(s);
    else
        wait_closed(s);
}

void net_remember(int fd, cse_socket s)
{
    if (!confined) cse_after_close = after_close;
    struct cse_identity identity = {sockets_device, IS_NETLINK(s) ? 0 : stack->inode(s)};
    if (identity.device == 0 || identity.inode == 0) identity = cse_identity_of(fd);
    sockets_device = identity.device;
    cse_fd_forget(fd);
    cse_fd_remember(fd, 0, identity, s);
    __atomic_store_n(&sockets, true, __ATOMIC_RELEASE);
}

/* A nameless socket pair's end, as a private socket looks like after exec. */
static bool may_be_inherited(int fd)
{
    struct sockaddr_un name;
    socklen_t length = sizeof name, size = sizeof(int);
    int domain = 0;
    if (syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) != 0) return false;
    if (domain != AF_UNIX) return false;
    if (syscall(SYS_getsockname, fd, &name, &length) != 0 || length != sizeof(sa_family_t))
        return false;
    length = sizeof name;
    return syscall(SYS_getpeername, fd, &name, &length) == 0 && length == sizeof(sa_family_t);
}

static cse_socket find_slowly(int fd, uint32_t generation)
{
    static bool tried_to_join;
    struct cse_identity identity = cse_identity_of(fd);
    if (identity.inode == 0) return 0;
    const struct cse_stack *there = net_running();
    if (there == NULL && !tried_to_join && may_be_inherited(fd)) {
        tried_to_join = true;
        there = start(true);
        if (there != NULL) __atomic_store_n(&sockets, true, __ATOMIC_RELEASE);
    }
    if (there == NULL) return 0;
    bool socket_file = sockets_device == 0 || identity.device == sockets_device;
    cse_socket s = socket_file ? there->find(identity.inode) : 0;
    cse_fd_remember(fd, generation, identity, s);
    if (s != 0) {
        sockets_device = identity.device;
        __atomic_store_n(&sockets, true, __ATOMIC_RELEASE);
    }
    return s;
}

cse_socket net_find(int fd)
{
    uintptr_t known;
    uint32_t generation = 0;
    if (fd < 0 || cse_is_own_fd(fd)) return 0;
    if (cse_fd_lookup(fd, &known, &generation)) return IS_NETLINK(known) ? 0 : known;
    int saved_errno = errno;
    cse_socket s = find_slowly(fd, generation);
    errno = saved_errno;
    return s;
}

cse_socket net_find_data(int fd)
{
    uintptr_t known;
    if (!__atomic_load_n(&sockets, __ATOMIC_ACQUIRE)) return 0;
    bool recalled = cse_fd_recall(fd, &known);
    if (recalled && (known == 0 || !CSE_SOCKET_IS_DATAGRAM(known))) return confined ? 0 : known;
    return confined && !recalled ? 0 : net_find(fd);
}

void net_confine(void)
{
    confined = cse_vfork_unasked = true;
    cse_after_close = NULL; /* the pump hears of it */
}
