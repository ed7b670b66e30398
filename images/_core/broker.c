/* The application's socket to the agent: SOCK_SEQPACKET, one message a packet, descriptors beside.
 *
 * Called by the network element to get its device and to look names up. The path is the identity:
 * each application finds only its own socket under its run directory. All calls go straight to
 * the kernel, since the overlays replace the socket calls of libc.
 */
#include "core.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { RETRY_MS = 20, TOLD_MS = 200 };

static long now_ms(void)
{
    struct timespec now;
    libc(syscall)(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int connect_once(const struct sockaddr_un *address)
{
    /* A broker that hangs with a full queue must not stop us: not even to connect. */
    int type = SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK;
    int fd = (int)libc(syscall)(SYS_socket, AF_UNIX, type, 0);
    if (fd < 0) return -1;
    if (libc(syscall)(SYS_connect, fd, address, sizeof *address) == 0 &&
        libc(syscall)(SYS_fcntl, fd, F_SETFL, 0L) == 0)
        return cse_own_fd(fd);
    int connect_errno = errno;
    libc(syscall)(SYS_close, fd);
    errno = connect_errno;
    return -1;
}

int cse_broker_connect(int timeout_ms)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int length =
        snprintf(address.sun_path, sizeof address.sun_path, "%s/broker.sock", cse_run_dir());
    if (length >= (int)sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    for (long deadline = now_ms() + timeout_ms;;) {
        int fd = connect_once(&address);
        if (fd >= 0) return fd;
        bool may_come = errno == ENOENT || errno == ECONNREFUSED || errno == EAGAIN;
        if (!may_come || (timeout_ms >= 0 && now_ms() >= deadline)) return -1;
        struct timespec pause = {0, RETRY_MS * 1000000L};
        libc(syscall)(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &pause, NULL);
    }
}

bool cse_broker_send(int broker, const char *text, const int *fds, int fd_count)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(CSE_BROKER_FDS_MAX * sizeof(int))];
    } control;
    struct iovec part = {(void *)text, strlen(text)};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (fd_count > 0 && fd_count <= CSE_BROKER_FDS_MAX) {
        memset(&control, 0, sizeof control);
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE((size_t)fd_count * sizeof(int));
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN((size_t)fd_count * sizeof(int));
        memcpy(CMSG_DATA(header), fds, (size_t)fd_count * sizeof(int));
    }
    long sent;
    do sent = libc(syscall)(SYS_sendmsg, broker, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent == (long)part.iov_len;
}

static void take_descriptors(struct msghdr *header, struct cse_message *message)
{
    struct cmsghdr *c = CMSG_FIRSTHDR(header);
    for (; c != NULL; c = CMSG_NXTHDR(header, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
        size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count && message->fd_count < CSE_BROKER_FDS_MAX; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            fd = cse_own_fd(fd);
            if (fd >= 0) message->fds[message->fd_count++] = fd;
        }
    }
}

int cse_broker_receive(int broker, struct cse_message *message, int timeout_ms)
{
    struct pollfd waiting = {broker, POLLIN, 0};
    struct timespec limit = {timeout_ms / 1000, (timeout_ms % 1000) * 1000000L};
    long ready;
    do ready = libc(syscall)(SYS_ppoll, &waiting, 1, timeout_ms < 0 ? NULL : &limit, NULL, 0);
    while (ready < 0 && errno == EINTR);
    if (ready == 0) return 0;

    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(CSE_BROKER_FDS_MAX * sizeof(int))];
    } control;
    struct iovec part = {message->text, sizeof message->text - 1};
    struct msghdr header = {.msg_iov = &part,
                            .msg_iovlen = 1,
                            .msg_control = control.bytes,
                            .msg_controllen = sizeof control.bytes};
    message->fd_count = 0;
    long got;
    do got = libc(syscall)(SYS_recvmsg, broker, &header, MSG_CMSG_CLOEXEC);
    while (got < 0 && errno == EINTR);
    if (got <= 0) return -1;
    message->text[got] = '\0';
    take_descriptors(&header, message);
    return 1;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

bool cse_message_field(const char *text, const char *key, char *out, size_t size)
{
    size_t length = strlen(key);
    for (const char *word = strchr(text, ' '); word != NULL; word = strchr(word, ' ')) {
        word++;
        if (strncmp(word, key, length) != 0 || word[length] != '=') continue;
        const char *value = word + length + 1;
        size_t used = 0;
        while (*value != '\0' && *value != ' ' && used + 1 < size) {
            int high, low;
            if (value[0] == '%' && (high = hex_value(value[1])) >= 0 &&
                (low = hex_value(value[2])) >= 0) {
                out[used++] = (char)(high * 16 + low);
                value += 3;
            } else {
                out[used++] = *value++;
            }
        }
        out[used] = '\0';
        return true;
    }
    return false;
}

/* The broker closes a connection that has ended once it has taken what came before: its end is the
 * acknowledgement. Whoever sees the call fail finds the reason in the events already. */
void cse_tell(const char *text)
{
    int saved_errno = errno;
    char message[CSE_BROKER_MESSAGE_MAX];
    snprintf(message, sizeof message, "event %s", text);
    int broker = cse_broker_connect(0);
    if (broker >= 0) {
        struct pollfd end = {broker, 0, 0};
        struct timespec limit = {0, TOLD_MS * 1000000L};
        if (cse_broker_send(broker, message, NULL, 0) &&
            libc(syscall)(SYS_shutdown, broker, SHUT_WR) == 0)
            libc(syscall)(SYS_ppoll, &end, 1, &limit, NULL, 0);
        cse_own_close(broker);
    }
    errno = saved_errno;
}
