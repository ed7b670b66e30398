/* Unix sockets with names in a mount: the kernel is given the real name, the program its own. */
#include "calls.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

/* A Unix socket's address holds 107 bytes; longer real paths go through a descriptor of the
 * directory. */
static int real_address(const struct sockaddr *given, socklen_t length, struct sockaddr_un *out,
                        bool creates, struct fs_where *where, int *holder)
{
    char path[sizeof out->sun_path + 1];
    *holder = -1;
    size_t room = length - offsetof(struct sockaddr_un, sun_path);
    if (given == NULL || length <= offsetof(struct sockaddr_un, sun_path) || length > sizeof *out ||
        given->sa_family != AF_UNIX || ((const struct sockaddr_un *)given)->sun_path[0] == '\0')
        return FS_OUTSIDE;
    memcpy(path, ((const struct sockaddr_un *)given)->sun_path, room);
    path[room] = '\0';
    if (!fs_maybe(AT_FDCWD, path)) return FS_OUTSIDE;
    int found = fs_find(AT_FDCWD, path, creates ? FS_ITSELF : FS_FOLLOW, where);
    if (found != FS_INSIDE) return found;
    int error = creates ? fs_for_creation(where, false) : fs_real(where);
    if (error != 0) return error == -EEXIST ? -EADDRINUSE : error;
    memset(out, 0, sizeof *out);
    out->sun_family = AF_UNIX;
    if (strlen(where->real) < sizeof out->sun_path) {
        memcpy(out->sun_path, where->real, strlen(where->real) + 1);
        return FS_INSIDE;
    }
    char *slash = strrchr(where->real, '/');
    *slash = '\0';
    *holder = raw_open(where->real, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    *slash = '/';
    if (*holder < 0) return *holder;
    int used = snprintf(out->sun_path, sizeof out->sun_path, "/proc/self/fd/%d%s", *holder, slash);
    return used < (int)sizeof out->sun_path ? FS_INSIDE : -ENAMETOOLONG;
}

static int with_address(int fd, const struct sockaddr *given, socklen_t length, bool creates,
                        int (*next)(int, const struct sockaddr *, socklen_t))
{
    struct sockaddr_un real;
    struct fs_where where;
    int holder = -1;
    int found = given != NULL && given->sa_family == AF_UNIX && fs_ready()
                    ? real_address(given, length, &real, creates, &where, &holder)
                    : FS_OUTSIDE;
    if (found < 0) return fs_fail(found);
    if (found != FS_INSIDE) return next(fd, given, length);
    int result = next(fd, (const struct sockaddr *)&real, sizeof real);
    if (holder >= 0) raw_close(holder);
    if (result == 0 && creates) fs_created(&where, S_IFSOCK);
    return result;
}

CALL(bind, int, int fd, const struct sockaddr *address, socklen_t length)
{
    return with_address(fd, address, length, true,
                        NEXT(bind, int, int, const struct sockaddr *, socklen_t));
}

#ifdef __GLIBC__
CALL(__connect, int, int fd, const struct sockaddr *address, socklen_t length)
{
    return with_address(fd, address, length, false,
                        NEXT(connect, int, int, const struct sockaddr *, socklen_t));
}
#endif

CALL(connect, int, int fd, const struct sockaddr *address, socklen_t length)
{
    return with_address(fd, address, length, false,
                        NEXT(connect, int, int, const struct sockaddr *, socklen_t));
}

/* ---- datagrams ----------------------------------------------------------------------------------
 */

static bool is_named(const struct sockaddr *address)
{
    return address != NULL && address->sa_family == AF_UNIX && fs_ready();
}

CALL(sendto, ssize_t, int fd, const void *data, size_t size, int flags,
     const struct sockaddr *address, socklen_t length)
{
    ssize_t (*next)(int, const void *, size_t, int, const struct sockaddr *, socklen_t) =
        NEXT(sendto, ssize_t, int, const void *, size_t, int, const struct sockaddr *, socklen_t);
    struct sockaddr_un real;
    struct fs_where where;
    int holder = -1;
    int found = is_named(address) ? real_address(address, length, &real, false, &where, &holder)
                                  : FS_OUTSIDE;
    if (found < 0) return fs_fail(found);
    if (found != FS_INSIDE) return next(fd, data, size, flags, address, length);
    ssize_t sent = next(fd, data, size, flags, (const struct sockaddr *)&real, sizeof real);
    if (holder >= 0) raw_close(holder);
    return sent;
}

CALL(sendmsg, ssize_t, int fd, const struct msghdr *message, int flags)
{
    ssize_t (*next)(int, const struct msghdr *, int) =
        NEXT(sendmsg, ssize_t, int, const struct msghdr *, int);
    struct sockaddr_un real;
    struct fs_where where;
    int holder = -1;
    int found =
        message != NULL && is_named(message->msg_name)
            ? real_address(message->msg_name, message->msg_namelen, &real, false, &where, &holder)
            : FS_OUTSIDE;
    if (found < 0) return fs_fail(found);
    if (found != FS_INSIDE) return next(fd, message, flags);
    struct msghdr changed = *message;
    changed.msg_name = &real;
    changed.msg_namelen = sizeof real;
    ssize_t sent = next(fd, &changed, flags);
    if (holder >= 0) raw_close(holder);
    return sent;
}

/* ---- names that the kernel tells ----------------------------------------------------------------
 */

typedef int name_call(int, struct sockaddr *, socklen_t *);

/* The kernel's answer, with the program's path where it is one of a mount. */
static int give_name(name_call *next, int fd, struct sockaddr *address, socklen_t *length)
{
    struct sockaddr_un real;
    char text[PATH_MAX];
    socklen_t size = sizeof real, room = length != NULL ? *length : 0;
    memset(&real, 0, sizeof real);
    if (!fs_ready() || address == NULL || length == NULL ||
        next(fd, (struct sockaddr *)&real, &size) != 0 || real.sun_family != AF_UNIX ||
        real.sun_path[0] != '/' || !fs_virtual_of(real.sun_path, FS_ANY, text))
        return next(fd, address, length);
    snprintf(real.sun_path, sizeof real.sun_path, "%.*s", (int)sizeof real.sun_path - 1, text);
    size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(real.sun_path) + 1);
    memcpy(address, &real, room < size ? room : size);
    *length = size;
    return 0;
}

CALL(getsockname, int, int fd, struct sockaddr *address, socklen_t *length)
{
    return give_name(NEXT(getsockname, int, int, struct sockaddr *, socklen_t *), fd, address,
                     length);
}

CALL(getpeername, int, int fd, struct sockaddr *address, socklen_t *length)
{
    return give_name(NEXT(getpeername, int, int, struct sockaddr *, socklen_t *), fd, address,
                     length);
}
