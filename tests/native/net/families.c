/* IPv6, datagrams, groups and echoes: each case prints what it saw. Run once on the kernel's stack
 * and once under the overlay by test_net_families.py: the lines must be the same. The machine has
 * the interfaces lo and eth0, the latter with the addresses FAMILIES_4 and FAMILIES_6.
 *
 *   families CASE...   (no argument: the names of all cases)
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <linux/errqueue.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const char *error_name(long result)
{
    if (result >= 0) return "ok";
    const char *name = strerrorname_np(errno);
    return name != NULL ? name : "?";
}
#define SHOW(call) printf("%s: %s\n", #call, error_name((long)(call)))
#define VALUE(call)                                                                                \
    do {                                                                                           \
        long value_ = (long)(call);                                                                \
        if (value_ < 0)                                                                            \
            printf("%s: %s\n", #call, error_name(value_));                                         \
        else                                                                                       \
            printf("%s: %ld\n", #call, value_);                                                    \
    } while (0)

typedef struct sockaddr SA;

static struct sockaddr_in v4(const char *text, int port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    inet_pton(AF_INET, text, &a.sin_addr);
    return a;
}

static struct sockaddr_in6 v6(const char *text, int port)
{
    struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
    inet_pton(AF_INET6, text, &a.sin6_addr);
    return a;
}

static int bind6(int fd, const char *text, int port)
{
    struct sockaddr_in6 a = v6(text, port);
    return bind(fd, (SA *)&a, sizeof a);
}

static int bind4(int fd, const char *text, int port)
{
    struct sockaddr_in a = v4(text, port);
    return bind(fd, (SA *)&a, sizeof a);
}

static int connect6(int fd, const char *text, int port)
{
    struct sockaddr_in6 a = v6(text, port);
    return connect(fd, (SA *)&a, sizeof a);
}

static int connect4(int fd, const char *text, int port)
{
    struct sockaddr_in a = v4(text, port);
    return connect(fd, (SA *)&a, sizeof a);
}

static int send6(int fd, const char *bytes, const char *text, int port)
{
    struct sockaddr_in6 a = v6(text, port);
    return (int)sendto(fd, bytes, strlen(bytes), 0, (SA *)&a, sizeof a);
}

static int send4(int fd, const char *bytes, const char *text, int port)
{
    struct sockaddr_in a = v4(text, port);
    return (int)sendto(fd, bytes, strlen(bytes), 0, (SA *)&a, sizeof a);
}

static int port_of(int fd)
{
    struct sockaddr_storage a;
    socklen_t length = sizeof a;
    if (getsockname(fd, (SA *)&a, &length) != 0) return -1;
    return ntohs(((struct sockaddr_in *)&a)->sin_port);
}

/* An address without its port, or with "port" where it has one. */
static void show_address(const char *what, const void *address, socklen_t length)
{
    char text[INET6_ADDRSTRLEN];
    const struct sockaddr_in *in = address;
    const struct sockaddr_in6 *in6 = address;
    if (length == 0) {
        printf("%s: none\n", what);
        return;
    }
    if (in->sin_family == AF_INET)
        printf("%s: %s %s (%d)\n", what, inet_ntop(AF_INET, &in->sin_addr, text, sizeof text),
               in->sin_port ? "port" : "-", (int)length);
    else
        printf("%s: %s %s scope %d (%d)\n", what,
               inet_ntop(AF_INET6, &in6->sin6_addr, text, sizeof text),
               in6->sin6_port ? "port" : "-", (int)in6->sin6_scope_id, (int)length);
}

static void show_name(const char *what, int fd, int (*name)(int, SA *, socklen_t *))
{
    struct sockaddr_storage a = {0};
    socklen_t length = sizeof a;
    if (name(fd, (SA *)&a, &length) != 0)
        printf("%s: %s\n", what, error_name(-1));
    else
        show_address(what, &a, length);
}

static int get_int(int fd, int level, int name)
{
    int value = -1;
    socklen_t length = sizeof value;
    return getsockopt(fd, level, name, &value, &length) == 0 ? value : -1;
}

static int set_int(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof value);
}

static void limit(int fd, int ms)
{
    struct timeval time = {ms / 1000, ms % 1000 * 1000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
}

/* One datagram with all that is told of it. */
static void show_datagram(int fd, int flags)
{
    char bytes[64] = {0}, control[512], text[INET6_ADDRSTRLEN];
    struct sockaddr_storage from = {0};
    struct iovec part = {bytes, sizeof bytes};
    struct msghdr m = {.msg_name = &from,
                       .msg_namelen = sizeof from,
                       .msg_iov = &part,
                       .msg_iovlen = 1,
                       .msg_control = control,
                       .msg_controllen = sizeof control};
    ssize_t got = recvmsg(fd, &m, flags);
    if (got < 0) {
        printf("recvmsg: %s\n", error_name(-1));
        return;
    }
    printf("got %d '%.*s' flags %x\n", (int)got, (int)got, bytes, m.msg_flags);
    show_address(" from", &from, m.msg_namelen);
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h != NULL; h = CMSG_NXTHDR(&m, h)) {
        printf(" control %d %d size %d", h->cmsg_level, h->cmsg_type, (int)h->cmsg_len);
        void *data = CMSG_DATA(h);
        if (h->cmsg_level == IPPROTO_IPV6 && h->cmsg_type == IPV6_PKTINFO) {
            struct in6_pktinfo *info = data;
            printf(" %s on %d", inet_ntop(AF_INET6, &info->ipi6_addr, text, sizeof text),
                   info->ipi6_ifindex);
        } else if (h->cmsg_level == IPPROTO_IP && h->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo *info = data;
            printf(" %s on %d", inet_ntop(AF_INET, &info->ipi_addr, text, sizeof text),
                   info->ipi_ifindex);
        } else if (h->cmsg_level == SOL_SOCKET) {
            printf(" time");
        } else if ((h->cmsg_level == IPPROTO_IP && h->cmsg_type == IP_RECVERR) ||
                   (h->cmsg_level == IPPROTO_IPV6 && h->cmsg_type == IPV6_RECVERR)) {
            struct sock_extended_err *e = data;
            struct sockaddr_in *offender = (struct sockaddr_in *)SO_EE_OFFENDER(e);
            printf(" errno %s origin %d type %d code %d info %u\n",
                   strerrorname_np((int)e->ee_errno), e->ee_origin, e->ee_type, e->ee_code,
                   e->ee_info);
            show_address("  offender", offender, offender->sin_family == AF_INET ? 16 : 28);
            continue;
        } else {
            printf(" %d", h->cmsg_type == IP_TOS && h->cmsg_level == IPPROTO_IP ? *(uint8_t *)data
                                                                                : *(int *)data);
        }
        printf("\n");
    }
}

static const char *own4, *own6;

/* ---- IPv6 and dual sockets ---------------------------------------------------------------------
 */

static void case_tcp6(void)
{
    char text[8] = {0};
    int l = socket(AF_INET6, SOCK_STREAM, 0), c = socket(AF_INET6, SOCK_STREAM, 0);
    VALUE(get_int(l, SOL_SOCKET, SO_DOMAIN));
    VALUE(get_int(l, SOL_SOCKET, SO_PROTOCOL));
    VALUE(get_int(l, IPPROTO_IPV6, IPV6_V6ONLY));
    VALUE(get_int(l, IPPROTO_IPV6, IPV6_UNICAST_HOPS));
    show_name("fresh", l, getsockname);
    show_name("fresh peer", l, getpeername);
    SHOW(bind6(l, "::1", 0));
    SHOW(listen(l, 4));
    show_name("listening", l, getsockname);
    SHOW(connect6(c, "::1", port_of(l)));
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;
    int a = accept(l, (SA *)&peer, &length);
    show_address("accepted", &peer, length);
    show_name("here", c, getsockname);
    show_name("there", c, getpeername);
    VALUE(write(c, "six", 3));
    VALUE(read(a, text, sizeof text));
    puts(text);
    SHOW(set_int(c, IPPROTO_IPV6, IPV6_V6ONLY, 1));
    SHOW(set_int(c, IPPROTO_IPV6, IPV6_TCLASS, 8));
    VALUE(get_int(c, IPPROTO_IPV6, IPV6_TCLASS));
    close(l);
    int r = socket(AF_INET6, SOCK_STREAM, 0);
    SHOW(connect6(r, "::1", 9));
    SHOW(connect6(r, "fe80::1", 9));
}

static void case_dual(void)
{
    int l = socket(AF_INET6, SOCK_STREAM, 0), c = socket(AF_INET, SOCK_STREAM, 0);
    SHOW(bind6(l, "::", 0));
    SHOW(listen(l, 4));
    SHOW(connect4(c, "127.0.0.1", port_of(l)));
    int a = accept(l, NULL, NULL);
    show_name("accepted here", a, getsockname);
    show_name("accepted there", a, getpeername);
    show_name("client there", c, getpeername);
    int m = socket(AF_INET6, SOCK_STREAM, 0);
    SHOW(connect6(m, "::ffff:127.0.0.1", port_of(l)));
    show_name("mapped here", m, getsockname);
    show_name("mapped there", m, getpeername);
    int n = socket(AF_INET6, SOCK_STREAM, 0);
    SHOW(connect6(n, own6, port_of(l)));
    show_name("six there", n, getpeername);
    int z = socket(AF_INET6, SOCK_STREAM, 0);
    SHOW(connect6(z, "::", port_of(l)));
    show_name("unspecified there", z, getpeername);
    int b = socket(AF_INET6, SOCK_STREAM, 0);
    SHOW(bind6(b, "::ffff:127.0.0.1", 0));
    show_name("bound mapped", b, getsockname);
    int o = socket(AF_INET6, SOCK_STREAM, 0);
    SHOW(set_int(o, IPPROTO_IPV6, IPV6_V6ONLY, 1));
    SHOW(connect6(o, "::ffff:127.0.0.1", port_of(l)));
    SHOW(bind6(o, "::ffff:127.0.0.1", 0));
}

static void case_ports(void)
{
    int six = socket(AF_INET6, SOCK_STREAM, 0), four = socket(AF_INET, SOCK_STREAM, 0);
    SHOW(bind6(six, "::", 7777));
    SHOW(bind4(four, "0.0.0.0", 7777));
    SHOW(bind4(four, "127.0.0.1", 7777));
    close(six);
    six = socket(AF_INET6, SOCK_STREAM, 0);
    SHOW(set_int(six, IPPROTO_IPV6, IPV6_V6ONLY, 1));
    SHOW(bind6(six, "::", 7777));
    SHOW(bind4(four, "0.0.0.0", 7777));
    SHOW(listen(six, 1));
    SHOW(listen(four, 1));
    int c = socket(AF_INET, SOCK_STREAM, 0), d = socket(AF_INET6, SOCK_STREAM, 0);
    SHOW(connect4(c, "127.0.0.1", 7777));
    SHOW(connect6(d, "::1", 7777));
    int u = socket(AF_INET6, SOCK_DGRAM, 0), v = socket(AF_INET, SOCK_DGRAM, 0);
    SHOW(bind6(u, "::1", 7777));
    SHOW(bind4(v, "0.0.0.0", 7777));
}

static void case_wrong_addresses(void)
{
    int six = socket(AF_INET6, SOCK_STREAM, 0), four = socket(AF_INET, SOCK_STREAM, 0);
    int u6 = socket(AF_INET6, SOCK_DGRAM, 0), u4 = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in a = v4("127.0.0.1", 80);
    struct sockaddr_in6 b = v6("::1", 80);
    SHOW(bind(six, (SA *)&a, sizeof a));
    SHOW(bind(four, (SA *)&b, sizeof b));
    SHOW(bind(six, (SA *)&b, 20));
    SHOW(bind(four, (SA *)&a, 8));
    SHOW(connect(six, (SA *)&a, sizeof a));
    SHOW(connect(four, (SA *)&b, sizeof b));
    SHOW(connect(u6, (SA *)&b, 20));
    SHOW(connect(u6, (SA *)&a, sizeof a));
    SHOW(connect(u4, (SA *)&b, sizeof b));
    SHOW(sendto(u4, "x", 1, 0, (SA *)&b, sizeof b));
    SHOW(bind6(six, "2001:db8::1", 0));
    SHOW(bind6(six, "fe80::1", 0));
    SHOW(bind6(u6, "ff02::1234", 0));
    SHOW(socket(AF_INET6, SOCK_DGRAM, IPPROTO_TCP));
    SHOW(socket(AF_INET6, SOCK_STREAM, IPPROTO_UDP));
    SHOW(set_int(four, IPPROTO_IPV6, IPV6_V6ONLY, 1));
    VALUE(get_int(six, IPPROTO_IPV6, 9999));
}

static void case_names6(void)
{
    static const struct {
        const char *node;
        int family, flags;
    } asked[] = {{NULL, 0, 0},
                 {NULL, 0, AI_PASSIVE},
                 {NULL, AF_INET6, AI_PASSIVE},
                 {"::1", 0, 0},
                 {"::1", AF_INET, 0},
                 {"127.0.0.1", AF_INET6, 0},
                 {"127.0.0.1", AF_INET6, AI_V4MAPPED},
                 {"fe80::1%eth0", 0, AI_NUMERICHOST},
                 {"fe80::1%2", AF_INET6, 0},
                 {"fe80::1%none", AF_INET6, AI_NUMERICHOST},
                 {"localhost", AF_INET, 0}};
    for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) {
        struct addrinfo hints = {.ai_family = asked[i].family,
                                 .ai_flags = asked[i].flags,
                                 .ai_socktype = SOCK_STREAM},
                        *list = NULL;
        int failed = getaddrinfo(asked[i].node, "80", &hints, &list);
        printf("%s %d %d: %d\n", asked[i].node ? asked[i].node : "-", asked[i].family,
               asked[i].flags, failed);
        for (struct addrinfo *one = failed ? NULL : list; one != NULL; one = one->ai_next)
            show_address(" ", one->ai_addr, one->ai_addrlen);
    }
    char host[128];
    struct sockaddr_in6 local = v6("fe80::5", 0);
    local.sin6_scope_id = 2;
    getnameinfo((SA *)&local, sizeof local, host, sizeof host, NULL, 0, NI_NUMERICHOST);
    puts(host);
    VALUE(if_nametoindex("eth0"));
    VALUE(if_nametoindex("eth1"));
}

static void case_interfaces(void)
{
    struct ifaddrs *list;
    char host[128], mask[128];
    SHOW(getifaddrs(&list));
    for (; list != NULL; list = list->ifa_next) {
        int family = list->ifa_addr ? list->ifa_addr->sa_family : -1;
        socklen_t size =
            family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
        if (family != AF_INET && family != AF_INET6) continue;
        if (strcmp(list->ifa_name, "far") == 0) continue; /* the other end of the test's eth0 */
        getnameinfo(list->ifa_addr, size, host, sizeof host, NULL, 0, NI_NUMERICHOST);
        getnameinfo(list->ifa_netmask, size, mask, sizeof mask, NULL, 0, NI_NUMERICHOST);
        printf("%s %d %s %s\n", list->ifa_name, family, host, mask);
    }
}

/* ---- datagrams
 * ----------------------------------------------------------------------------------- */

static void case_udp6(void)
{
    int s = socket(AF_INET6, SOCK_DGRAM, 0), c = socket(AF_INET6, SOCK_DGRAM, 0);
    int f = socket(AF_INET, SOCK_DGRAM, 0);
    SHOW(bind6(s, "::", 0));
    limit(s, 2000);
    SHOW(set_int(s, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1));
    SHOW(set_int(s, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1));
    SHOW(set_int(s, IPPROTO_IPV6, IPV6_RECVTCLASS, 1));
    SHOW(set_int(c, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 17));
    SHOW(set_int(c, IPPROTO_IPV6, IPV6_TCLASS, 32));
    VALUE(send6(c, "one", "::1", port_of(s)));
    show_datagram(s, 0);
    VALUE(send6(c, "two", own6, port_of(s)));
    show_datagram(s, 0);
    VALUE(send4(f, "three", "127.0.0.1", port_of(s)));
    show_datagram(s, 0);
    VALUE(send6(c, "four", "::ffff:127.0.0.1", port_of(s)));
    show_datagram(s, 0);
    VALUE(send4(c, "five", "127.0.0.1", port_of(s)));
    show_datagram(s, 0);
    VALUE(send6(c, "six", "::", port_of(s)));
    show_datagram(s, 0);
    SHOW(set_int(s, SOL_SOCKET, SO_TIMESTAMP, 1));
    VALUE(send6(c, "", "::1", port_of(s)));
    show_datagram(s, 0);
    SHOW(set_int(c, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 256));
    SHOW(send6(c, "x", "::1", 0));
}

static void case_connected(void)
{
    char text[16];
    int s = socket(AF_INET6, SOCK_DGRAM, 0), c = socket(AF_INET6, SOCK_DGRAM, 0);
    int other = socket(AF_INET6, SOCK_DGRAM, 0);
    SHOW(bind6(s, "::1", 0));
    SHOW(connect6(c, "::1", port_of(s)));
    show_name("here", c, getsockname);
    show_name("there", c, getpeername);
    limit(c, 100);
    VALUE(send6(other, "stranger", "::1", port_of(c)));
    VALUE(recv(c, text, sizeof text, 0));
    VALUE(send6(s, "peer", "::1", port_of(c)));
    VALUE(recv(c, text, sizeof text, 0));
    VALUE(send(c, "on", 2, 0));
    VALUE(recv(s, text, sizeof text, 0));
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    SHOW(connect(c, &none, sizeof none));
    show_name("dissolved there", c, getpeername);
    SHOW(send(c, "x", 1, 0));
    SHOW(connect6(c, "::1", 9));
    VALUE(send(c, "x", 1, 0));
    limit(c, 2000);
    VALUE(recv(c, text, sizeof text, 0));
    SHOW(connect6(c, "::ffff:127.0.0.1", 9));
}

static void case_error_queue(void)
{
    char text[16];
    int c = socket(AF_INET, SOCK_DGRAM, 0), d = socket(AF_INET6, SOCK_DGRAM, 0);
    limit(c, 2000);
    limit(d, 2000);
    SHOW(set_int(c, IPPROTO_IP, IP_RECVERR, 1));
    SHOW(set_int(d, IPPROTO_IPV6, IPV6_RECVERR, 1));
    show_datagram(c, MSG_ERRQUEUE);
    VALUE(send4(c, "lost", "127.0.0.1", 9));
    VALUE(recv(c, text, sizeof text, 0));
    show_datagram(c, MSG_ERRQUEUE);
    show_datagram(c, MSG_ERRQUEUE);
    VALUE(send6(d, "lost too", "::1", 9));
    VALUE(recv(d, text, sizeof text, 0));
    show_datagram(d, MSG_ERRQUEUE);
    VALUE(send4(c, "again", "127.0.0.1", 9));
    struct timespec pause = {0, 100000000};
    nanosleep(&pause, NULL);
    VALUE(get_int(c, SOL_SOCKET, SO_ERROR));
    show_datagram(c, MSG_ERRQUEUE);
    SHOW(recv(c, text, sizeof text, MSG_DONTWAIT));
    VALUE(send4(c, "third", "127.0.0.1", 9));
    nanosleep(&pause, NULL);
    show_datagram(c, MSG_ERRQUEUE);
    VALUE(get_int(c, SOL_SOCKET, SO_ERROR));
    SHOW(recv(c, text, sizeof text, MSG_DONTWAIT));
    int plain = socket(AF_INET, SOCK_DGRAM, 0);
    VALUE(send4(plain, "untold", "127.0.0.1", 9));
    nanosleep(&pause, NULL);
    SHOW(recv(plain, text, sizeof text, MSG_DONTWAIT));
}

static void case_many(void)
{
    char bytes[3][8];
    struct iovec parts[3];
    struct mmsghdr list[3];
    int s = socket(AF_INET6, SOCK_DGRAM, 0), c = socket(AF_INET6, SOCK_DGRAM, 0);
    SHOW(bind6(s, "::1", 0));
    SHOW(connect6(c, "::1", port_of(s)));
    memset(list, 0, sizeof list);
    for (int i = 0; i < 3; i++) {
        snprintf(bytes[i], sizeof bytes[i], "part %d", i);
        parts[i] = (struct iovec){bytes[i], 6};
        list[i].msg_hdr = (struct msghdr){.msg_iov = &parts[i], .msg_iovlen = 1};
    }
    VALUE(sendmmsg(c, list, 3, 0));
    int waiting = 0;
    SHOW(ioctl(s, FIONREAD, &waiting));
    printf("waiting %d\n", waiting);
    memset(bytes, 0, sizeof bytes);
    for (int i = 0; i < 3; i++) parts[i].iov_len = 4;
    VALUE(recvmmsg(s, list, 3, MSG_DONTWAIT, NULL));
    for (int i = 0; i < 3; i++)
        printf("%.8s %u %x\n", bytes[i], list[i].msg_len, list[i].msg_hdr.msg_flags);
    VALUE(recvmmsg(s, list, 3, MSG_DONTWAIT, NULL));
    VALUE(send(c, "truncated", 9, 0));
    VALUE(recv(s, bytes[0], 4, MSG_TRUNC | MSG_PEEK));
    VALUE(recv(s, bytes[0], 4, MSG_TRUNC));
    static char big[70000];
    SHOW(send(c, big, sizeof big, 0));
    VALUE(send(c, big, 65000, 0));
    VALUE(recv(s, big, sizeof big, 0));
}

static void send_from(int fd, int level, int type, const void *value, size_t size, const void *to,
                      socklen_t length)
{
    char control[CMSG_SPACE(64)] = {0};
    struct iovec part = {"from", 4};
    struct msghdr m = {.msg_name = (void *)to,
                       .msg_namelen = length,
                       .msg_iov = &part,
                       .msg_iovlen = 1,
                       .msg_control = control,
                       .msg_controllen = CMSG_SPACE(size)};
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    h->cmsg_level = level;
    h->cmsg_type = type;
    h->cmsg_len = CMSG_LEN(size);
    memcpy(CMSG_DATA(h), value, size);
    VALUE(sendmsg(fd, &m, 0));
}

static void case_control(void)
{
    int s = socket(AF_INET, SOCK_DGRAM, 0), c = socket(AF_INET, SOCK_DGRAM, 0), number;
    int s6 = socket(AF_INET6, SOCK_DGRAM, 0), c6 = socket(AF_INET6, SOCK_DGRAM, 0);
    SHOW(bind4(s, "0.0.0.0", 0));
    SHOW(bind6(s6, "::", 0));
    SHOW(set_int(s, IPPROTO_IP, IP_PKTINFO, 1));
    SHOW(set_int(s, IPPROTO_IP, IP_RECVTTL, 1));
    SHOW(set_int(s, IPPROTO_IP, IP_RECVTOS, 1));
    SHOW(set_int(s6, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1));
    SHOW(set_int(s6, IPPROTO_IPV6, IPV6_RECVTCLASS, 1));
    limit(s, 2000);
    limit(s6, 2000);
    struct sockaddr_in to = v4("127.0.0.1", port_of(s));
    struct sockaddr_in6 to6 = v6(own6, port_of(s6));
    struct in_pktinfo info = {.ipi_spec_dst = v4("127.0.0.5", 0).sin_addr};
    send_from(c, IPPROTO_IP, IP_PKTINFO, &info, sizeof info, &to, sizeof to);
    show_datagram(s, 0);
    number = 9;
    send_from(c, IPPROTO_IP, IP_TTL, &number, sizeof number, &to, sizeof to);
    show_datagram(s, 0);
    number = 16;
    send_from(c, IPPROTO_IP, IP_TOS, &number, sizeof number, &to, sizeof to);
    show_datagram(s, 0);
    number = 0;
    send_from(c, IPPROTO_IP, IP_TTL, &number, sizeof number, &to, sizeof to);
    struct in6_pktinfo info6 = {.ipi6_addr = v6(own6, 0).sin6_addr};
    send_from(c6, IPPROTO_IPV6, IPV6_PKTINFO, &info6, sizeof info6, &to6, sizeof to6);
    show_datagram(s6, 0);
    number = 7;
    send_from(c6, IPPROTO_IPV6, IPV6_HOPLIMIT, &number, sizeof number, &to6, sizeof to6);
    show_datagram(s6, 0);
    send_from(c6, IPPROTO_IPV6, IPV6_TCLASS, &number, sizeof number, &to6, sizeof to6);
    show_datagram(s6, 0);
    info6.ipi6_addr = v6("2001:db8::9", 0).sin6_addr;
    send_from(c6, IPPROTO_IPV6, IPV6_PKTINFO, &info6, sizeof info6, &to6, sizeof to6);
    send_from(c, IPPROTO_IP, 99, &number, sizeof number, &to, sizeof to);
}

static void case_broadcast(void)
{
    char text[64];
    int s = socket(AF_INET, SOCK_DGRAM, 0), c = socket(AF_INET, SOCK_DGRAM, 0);
    SHOW(bind4(s, "0.0.0.0", 7070));
    limit(s, 2000);
    snprintf(text, sizeof text, "%s", own4);
    strcpy(strrchr(text, '.'), ".255");
    SHOW(send4(c, "denied", text, 7070));
    SHOW(connect4(c, "255.255.255.255", 7070));
    SHOW(set_int(c, SOL_SOCKET, SO_BROADCAST, 1));
    VALUE(send4(c, "to all", text, 7070));
    show_datagram(s, 0);
    int b = socket(AF_INET, SOCK_DGRAM, 0);
    SHOW(bind4(b, text, 7071));
    limit(b, 2000);
    VALUE(send4(c, "to all", text, 7071));
    show_datagram(b, 0);
}

/* ---- groups
 * ----------------------------------------------------------------------------------------- */

static int group4(int fd, int option, const char *group, int interface)
{
    struct ip_mreqn request = {.imr_ifindex = interface};
    inet_pton(AF_INET, group, &request.imr_multiaddr);
    return setsockopt(fd, IPPROTO_IP, option, &request, sizeof request);
}

static int group6(int fd, int option, const char *group, int interface)
{
    struct ipv6_mreq request = {.ipv6mr_interface = (unsigned)interface};
    inet_pton(AF_INET6, group, &request.ipv6mr_multiaddr);
    return setsockopt(fd, IPPROTO_IPV6, option, &request, sizeof request);
}

static void case_multicast(void)
{
    int a = socket(AF_INET, SOCK_DGRAM, 0), b = socket(AF_INET, SOCK_DGRAM, 0);
    int c = socket(AF_INET, SOCK_DGRAM, 0);
    set_int(a, SOL_SOCKET, SO_REUSEADDR, 1);
    set_int(b, SOL_SOCKET, SO_REUSEADDR, 1);
    SHOW(bind4(a, "0.0.0.0", 5353));
    SHOW(bind4(b, "224.0.0.251", 5353));
    limit(a, 300);
    limit(b, 300);
    set_int(a, IPPROTO_IP, IP_PKTINFO, 1);
    set_int(a, IPPROTO_IP, IP_RECVTTL, 1);
    VALUE(get_int(c, IPPROTO_IP, IP_MULTICAST_TTL));
    VALUE(get_int(c, IPPROTO_IP, IP_MULTICAST_LOOP));
    SHOW(group4(a, IP_ADD_MEMBERSHIP, "224.0.0.251", 2));
    SHOW(group4(a, IP_ADD_MEMBERSHIP, "224.0.0.251", 2));
    SHOW(group4(a, IP_ADD_MEMBERSHIP, "10.1.2.3", 2));
    SHOW(group4(a, IP_ADD_MEMBERSHIP, "224.0.0.252", 9));
    SHOW(group4(b, IP_ADD_MEMBERSHIP, "224.0.0.251", 2));
    SHOW(group4(a, IP_DROP_MEMBERSHIP, "224.0.0.252", 2));
    VALUE(send4(c, "query", "224.0.0.251", 5353));
    show_datagram(a, 0);
    show_datagram(b, 0);
    SHOW(set_int(c, IPPROTO_IP, IP_MULTICAST_TTL, 5));
    VALUE(get_int(c, IPPROTO_IP, IP_MULTICAST_TTL));
    SHOW(set_int(c, IPPROTO_IP, IP_MULTICAST_TTL, 300));
    struct in_addr interface = v4(own4, 0).sin_addr;
    SHOW(setsockopt(c, IPPROTO_IP, IP_MULTICAST_IF, &interface, sizeof interface));
    interface = v4("192.0.2.77", 0).sin_addr;
    SHOW(setsockopt(c, IPPROTO_IP, IP_MULTICAST_IF, &interface, sizeof interface));
    VALUE(send4(c, "far", "224.0.0.251", 5353));
    show_datagram(a, 0);
    show_datagram(b, 0);
    SHOW(set_int(c, IPPROTO_IP, IP_MULTICAST_LOOP, 0));
    VALUE(send4(c, "silent", "224.0.0.251", 5353));
    show_datagram(a, 0);
    SHOW(set_int(c, IPPROTO_IP, IP_MULTICAST_LOOP, 1));
    SHOW(group4(a, IP_DROP_MEMBERSHIP, "224.0.0.251", 2));
    close(b);
    nanosleep(&(struct timespec){0, 200000000}, NULL); /* a close is heard of by the pump */
    VALUE(send4(c, "nobody", "224.0.0.251", 5353));
    show_datagram(a, 0);
}

static void case_multicast6(void)
{
    int a = socket(AF_INET6, SOCK_DGRAM, 0), c = socket(AF_INET6, SOCK_DGRAM, 0);
    SHOW(bind6(a, "::", 5353));
    limit(a, 300);
    set_int(a, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
    set_int(a, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1);
    VALUE(get_int(c, IPPROTO_IPV6, IPV6_MULTICAST_HOPS));
    VALUE(get_int(c, IPPROTO_IPV6, IPV6_MULTICAST_LOOP));
    SHOW(group6(a, IPV6_JOIN_GROUP, "ff02::fb", 2));
    SHOW(group6(a, IPV6_JOIN_GROUP, "ff02::fb", 2));
    SHOW(group6(a, IPV6_JOIN_GROUP, "fe80::1", 2));
    SHOW(group6(a, IPV6_JOIN_GROUP, "ff02::fc", 9));
    SHOW(group6(a, IPV6_LEAVE_GROUP, "ff02::fc", 2));
    SHOW(set_int(c, IPPROTO_IPV6, IPV6_MULTICAST_IF, 2));
    SHOW(set_int(c, IPPROTO_IPV6, IPV6_MULTICAST_IF, 9));
    VALUE(send6(c, "query", "ff02::fb", 5353));
    show_datagram(a, 0);
    SHOW(set_int(c, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, 5));
    VALUE(send6(c, "far", "ff02::fb", 5353));
    show_datagram(a, 0);
    SHOW(set_int(c, IPPROTO_IPV6, IPV6_MULTICAST_LOOP, 0));
    VALUE(send6(c, "silent", "ff02::fb", 5353));
    show_datagram(a, 0);
    SHOW(set_int(c, IPPROTO_IPV6, IPV6_MULTICAST_LOOP, 1));
    SHOW(group6(a, IPV6_LEAVE_GROUP, "ff02::fb", 2));
    VALUE(send6(c, "nobody", "ff02::fb", 5353));
    show_datagram(a, 0);
    struct group_req request = {.gr_interface = 2};
    struct sockaddr_in6 group = v6("ff15::77", 0);
    memcpy(&request.gr_group, &group, sizeof group);
    SHOW(setsockopt(a, IPPROTO_IPV6, MCAST_JOIN_GROUP, &request, sizeof request));
    VALUE(send6(c, "wide", "ff15::77", 5353));
    show_datagram(a, 0);
    SHOW(setsockopt(a, IPPROTO_IPV6, MCAST_LEAVE_GROUP, &request, sizeof request));
}

/* ---- echoes
 * ----------------------------------------------------------------------------------------- */

static void case_ping(void)
{
    struct {
        struct icmphdr head;
        char rest[8];
    } echo = {.head = {.type = ICMP_ECHO, .un.echo = {.id = 1, .sequence = htons(3)}},
              .rest = "hi"};
    struct sockaddr_in to = v4("127.0.0.1", 0), from;
    socklen_t length = sizeof from;
    int s = socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP);
    VALUE(get_int(s, SOL_SOCKET, SO_PROTOCOL));
    VALUE(get_int(s, SOL_SOCKET, SO_TYPE));
    limit(s, 2000);
    show_name("fresh", s, getsockname);
    VALUE(sendto(s, &echo, sizeof echo, 0, (SA *)&to, sizeof to));
    show_name("sent", s, getsockname);
    int ident = port_of(s);
    memset(&echo, 0, sizeof echo);
    VALUE(recvfrom(s, &echo, sizeof echo, 0, (SA *)&from, &length));
    show_address("from", &from, length);
    printf("type %d mine %d sequence %d %s\n", echo.head.type,
           echo.head.un.echo.id == htons((uint16_t)ident), ntohs(echo.head.un.echo.sequence),
           echo.rest);
    echo.head.type = ICMP_TIMESTAMP;
    SHOW(sendto(s, &echo, sizeof echo, 0, (SA *)&to, sizeof to));
    SHOW(sendto(s, &echo, 4, 0, (SA *)&to, sizeof to));
    int t = socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP),
        u = socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP);
    SHOW(bind4(t, "127.0.0.1", 4711));
    show_name("bound", t, getsockname);
    SHOW(bind4(u, "127.0.0.1", 4711));
    SHOW(connect4(t, own4, 0));
    show_name("connected", t, getpeername);
    SHOW(socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMPV6));
    SHOW(socket(AF_INET6, SOCK_DGRAM, IPPROTO_ICMP));
}

static void case_ping6(void)
{
    struct {
        struct icmp6_hdr head;
        char rest[8];
    } echo = {.head = {.icmp6_type = ICMP6_ECHO_REQUEST, .icmp6_seq = htons(3)}, .rest = "hi"};
    struct sockaddr_in6 to = v6(own6, 0), from;
    socklen_t length = sizeof from;
    int s = socket(AF_INET6, SOCK_DGRAM, IPPROTO_ICMPV6);
    VALUE(get_int(s, SOL_SOCKET, SO_PROTOCOL));
    limit(s, 2000);
    VALUE(sendto(s, &echo, sizeof echo, 0, (SA *)&to, sizeof to));
    int ident = port_of(s);
    memset(&echo, 0, sizeof echo);
    VALUE(recvfrom(s, &echo, sizeof echo, 0, (SA *)&from, &length));
    show_address("from", &from, length);
    printf("type %d mine %d sequence %d %s\n", echo.head.icmp6_type,
           echo.head.icmp6_id == htons((uint16_t)ident), ntohs(echo.head.icmp6_seq), echo.rest);
    SHOW(sendto(s, &echo, sizeof echo, 0, (SA *)&to, sizeof to));
    struct sockaddr_in wrong = v4("127.0.0.1", 0);
    echo.head.icmp6_type = ICMP6_ECHO_REQUEST;
    SHOW(sendto(s, &echo, sizeof echo, 0, (SA *)&wrong, sizeof wrong));
    SHOW(bind6(s, "::1", 4711));
}

static const struct {
    const char *name;
    void (*run)(void);
} cases[] = {
#define CASE(name) {#name, case_##name}
    CASE(tcp6),        CASE(dual),       CASE(ports),   CASE(wrong_addresses),
    CASE(names6),      CASE(interfaces), CASE(udp6),    CASE(connected),
    CASE(error_queue), CASE(many),       CASE(control), CASE(broadcast),
    CASE(multicast),   CASE(multicast6), CASE(ping),    CASE(ping6),
};

int main(int count, char **words)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    own4 = getenv("FAMILIES_4");
    own6 = getenv("FAMILIES_6");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (count < 2) puts(cases[i].name);
        for (int n = 1; n < count; n++)
            if (strcmp(words[n], cases[i].name) == 0) cases[i].run();
    }
    return 0;
}
