/* What the kernel's routing socket says of interfaces, addresses and routes, for
 * test_net_netlink.py: run on the kernel in a namespace with the same addresses, and under the
 * overlay.
 *
 *   netlink CASE [ADDRESS…]
 *
 * Prints every message with its attributes. Left out are counters, times, and what only says which
 * driver a link has. The link numbered 99, the other end of the kernel's, is skipped.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_arp.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SOL_NETLINK
#define SOL_NETLINK 270
#endif
enum { OTHER_END = 99, BUFFER = 32768, SEQUENCE = 0x1234 };

static uint32_t port; /* of the socket in use */

static int open_socket(int type)
{
    struct sockaddr_nl name = {.nl_family = AF_NETLINK};
    socklen_t length = sizeof name;
    int fd = socket(AF_NETLINK, type, NETLINK_ROUTE);
    if (fd < 0 || bind(fd, (struct sockaddr *)&name, sizeof name) != 0 ||
        getsockname(fd, (struct sockaddr *)&name, &length) != 0)
        exit(9);
    port = name.nl_pid;
    return fd;
}

/* ---- requests ------------------------------------------------------------------------------- */

struct request {
    struct nlmsghdr header;
    char body[256];
};

static struct request begin(int type, int flags, const void *body, size_t size)
{
    struct request made = {{.nlmsg_len = NLMSG_LENGTH(size),
                            .nlmsg_type = (uint16_t)type,
                            .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags),
                            .nlmsg_seq = SEQUENCE}};
    memcpy(made.body, body, size);
    return made;
}

static void add(struct request *r, int type, const void *value, size_t size)
{
    struct rtattr *a = (struct rtattr *)((char *)r + NLMSG_ALIGN(r->header.nlmsg_len));
    a->rta_type = (uint16_t)type;
    a->rta_len = (uint16_t)RTA_LENGTH(size);
    memcpy(RTA_DATA(a), value, size);
    r->header.nlmsg_len = NLMSG_ALIGN(r->header.nlmsg_len) + RTA_ALIGN(a->rta_len);
}

static void ask(int fd, const struct request *r)
{
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    if (sendto(fd, r, r->header.nlmsg_len, 0, (struct sockaddr *)&kernel, sizeof kernel) !=
        (ssize_t)r->header.nlmsg_len)
        printf("sendto: %s\n", strerror(errno));
}

/* ---- answers -------------------------------------------------------------------------------- */

static void print_bytes(const char *what, const struct rtattr *a, size_t most)
{
    printf(" %s%d=", what, a->rta_type & NLA_TYPE_MASK);
    for (size_t i = 0; i < RTA_PAYLOAD(a) && i < most; i++)
        printf("%02x", ((unsigned char *)RTA_DATA(a))[i]);
}

static void print_attributes(const struct nlmsghdr *m, size_t body, const char *what)
{
    bool link = m->nlmsg_type == RTM_NEWLINK, route = m->nlmsg_type == RTM_NEWROUTE;
    const struct rtattr *a = (void *)((char *)NLMSG_DATA(m) + NLMSG_ALIGN(body));
    int left = (int)(m->nlmsg_len - NLMSG_LENGTH(NLMSG_ALIGN(body)));
    bool loopback = link && ((struct ifinfomsg *)NLMSG_DATA(m))->ifi_type == ARPHRD_LOOPBACK;
    for (; RTA_OK(a, left); a = RTA_NEXT(a, left)) {
        int type = a->rta_type & NLA_TYPE_MASK;
        if (loopback && type == IFLA_MTU) continue; /* each stack has its own */
        size_t most = 64;
        if (link && type != IFLA_ADDRESS && type != IFLA_BROADCAST && type != IFLA_IFNAME &&
            type != IFLA_MTU && type != IFLA_TXQLEN && type != IFLA_OPERSTATE &&
            type != IFLA_LINKMODE && type != IFLA_GROUP && type != IFLA_PROMISCUITY &&
            type != IFLA_CARRIER && type != IFLA_STATS && type != IFLA_STATS64)
            continue;
        if (link && (type == IFLA_STATS || type == IFLA_STATS64)) most = 0;
        if (m->nlmsg_type == RTM_NEWADDR && type == IFA_CACHEINFO) most = 8;
        if (route && type == RTA_CACHEINFO) most = 0;
        print_bytes(what, a, most);
    }
    printf("\n");
}

static void print_message(const struct nlmsghdr *m)
{
    const char *port_word = m->nlmsg_pid == port ? "ours" : "other";
    if (m->nlmsg_type == NLMSG_DONE) {
        printf("done flags %x seq %x %s %d\n", m->nlmsg_flags, m->nlmsg_seq, port_word,
               *(int *)NLMSG_DATA(m));
    } else if (m->nlmsg_type == NLMSG_ERROR) {
        struct nlmsgerr *e = NLMSG_DATA(m);
        printf("error %d (%s) flags %x of type %d len %d seq %x %s\n", e->error,
               strerror(-e->error), m->nlmsg_flags & ~NLM_F_ACK_TLVS, e->msg.nlmsg_type,
               e->msg.nlmsg_len, m->nlmsg_seq, port_word);
    } else if (m->nlmsg_type == RTM_NEWLINK) {
        struct ifinfomsg *i = NLMSG_DATA(m);
        if (i->ifi_index == OTHER_END) return;
        printf("link flags %x seq %x %s: family %d type %d index %d flags %x change %x",
               m->nlmsg_flags & ~NLM_F_DUMP_FILTERED, m->nlmsg_seq, port_word, i->ifi_family,
               i->ifi_type, i->ifi_index, i->ifi_flags, i->ifi_change);
        print_attributes(m, sizeof *i, "ifla");
    } else if (m->nlmsg_type == RTM_NEWADDR) {
        struct ifaddrmsg *i = NLMSG_DATA(m);
        printf("address flags %x: family %d prefix %d flags %x scope %d index %d", m->nlmsg_flags,
               i->ifa_family, i->ifa_prefixlen, i->ifa_flags, i->ifa_scope, i->ifa_index);
        print_attributes(m, sizeof *i, "ifa");
    } else if (m->nlmsg_type == RTM_NEWROUTE) {
        struct rtmsg *i = NLMSG_DATA(m);
        printf("route flags %x: family %d dst %d src %d tos %d table %d protocol %d scope %d "
               "type %d flags %x",
               m->nlmsg_flags, i->rtm_family, i->rtm_dst_len, i->rtm_src_len, i->rtm_tos,
               i->rtm_table, i->rtm_protocol, i->rtm_scope, i->rtm_type, i->rtm_flags);
        print_attributes(m, sizeof *i, "rta");
    } else {
        printf("message %d\n", m->nlmsg_type);
    }
}

/* Until what was asked is answered: the end of a dump, an error, or the one message. */
static void hear(int fd)
{
    static char buffer[BUFFER];
    for (bool more = true; more;) {
        struct sockaddr_nl from = {0};
        struct iovec part = {buffer, sizeof buffer};
        struct msghdr message = {
            .msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &part, .msg_iovlen = 1};
        ssize_t got = recvmsg(fd, &message, 0);
        if (got <= 0) {
            printf("recvmsg: %s\n", strerror(errno));
            return;
        }
        if (message.msg_namelen != sizeof from || from.nl_family != AF_NETLINK ||
            from.nl_pid != 0 || from.nl_groups != 0)
            printf("from %d bytes: family %d port %u\n", message.msg_namelen, from.nl_family,
                   from.nl_pid);
        size_t left = (size_t)got;
        for (struct nlmsghdr *m = (void *)buffer; NLMSG_OK(m, left); m = NLMSG_NEXT(m, left)) {
            print_message(m);
            more = (m->nlmsg_flags & NLM_F_MULTI) && m->nlmsg_type != NLMSG_DONE;
        }
    }
}

static void dump(int fd, int type, int family)
{
    struct rtmsg body = {.rtm_family = (unsigned char)family}; /* as long as the longest but one */
    size_t size = type == RTM_GETLINK   ? sizeof(struct ifinfomsg)
                  : type == RTM_GETADDR ? sizeof(struct ifaddrmsg)
                                        : sizeof body;
    char room[sizeof(struct ifinfomsg)] = {0};
    memcpy(room, &body, sizeof body);
    struct request r = begin(type, NLM_F_DUMP, room, size);
    ask(fd, &r);
    hear(fd);
}

/* ---- cases ---------------------------------------------------------------------------------- */

static int parse(const char *text, void *out)
{
    if (inet_pton(AF_INET, text, out) == 1) return AF_INET;
    return inet_pton(AF_INET6, text, out) == 1 ? AF_INET6 : -1;
}

static void get_routes(int fd, int count, char **words)
{
    for (int i = 0; i < count; i++) {
        unsigned char address[16];
        int family = parse(words[i], address), bytes = family == AF_INET ? 4 : 16;
        struct rtmsg body = {.rtm_family = (unsigned char)family,
                             .rtm_dst_len = (unsigned char)(bytes * 8)};
        struct request r = begin(RTM_GETROUTE, 0, &body, sizeof body);
        add(&r, RTA_DST, address, (size_t)bytes);
        printf("%s\n", words[i]);
        ask(fd, &r);
        hear(fd);
    }
}

static void get_link(int fd, int index, const char *name)
{
    struct ifinfomsg body = {.ifi_index = index};
    struct request r = begin(RTM_GETLINK, 0, &body, sizeof body);
    if (name != NULL) add(&r, IFLA_IFNAME, name, strlen(name) + 1);
    printf("link %d %s\n", index, name != NULL ? name : "");
    ask(fd, &r);
    hear(fd);
}

static void strict(int fd)
{
    int on = 1, index = 2;
    uint32_t table = RT_TABLE_MAIN;
    if (setsockopt(fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, &on, sizeof on) != 0) exit(8);
    for (int family = 0; family < 2; family++) {
        unsigned char word = family == 0 ? AF_INET : AF_INET6;
        struct rtmsg route = {.rtm_family = word};
        struct request r = begin(RTM_GETROUTE, NLM_F_DUMP, &route, sizeof route);
        add(&r, RTA_TABLE, &table, sizeof table);
        ask(fd, &r);
        hear(fd);
        add(&r, RTA_OIF, &index, sizeof index);
        ask(fd, &r);
        hear(fd);
        struct ifaddrmsg address = {.ifa_family = word, .ifa_index = 2};
        r = begin(RTM_GETADDR, NLM_F_DUMP, &address, sizeof address);
        ask(fd, &r);
        hear(fd);
    }
}

static void refused(int fd)
{
    struct ifaddrmsg address = {.ifa_family = AF_INET, .ifa_prefixlen = 24, .ifa_index = 2};
    struct ifinfomsg link = {.ifi_index = 2};
    struct rtmsg route = {.rtm_family = AF_INET};
    unsigned char ten[4] = {10, 1, 2, 3};
    struct request r = begin(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE, &address, sizeof address);
    add(&r, IFA_LOCAL, ten, sizeof ten);
    ask(fd, &r);
    hear(fd);
    r = begin(RTM_DELLINK, NLM_F_ACK, &link, sizeof link);
    ask(fd, &r);
    hear(fd);
    r = begin(RTM_DELROUTE, 0, &route, sizeof route);
    ask(fd, &r);
    hear(fd);
    r = begin(2000, 0, &route, sizeof route);
    ask(fd, &r);
    hear(fd);
    r = begin(NLMSG_NOOP, NLM_F_ACK, &route, 0);
    ask(fd, &r);
    hear(fd);
    int on = 1;
    setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof on);
    r = begin(RTM_DELROUTE, 0, &route, sizeof route);
    ask(fd, &r);
    hear(fd);
    get_link(fd, 7, NULL);
    get_link(fd, 0, "eth7");
}

static void said(const char *what, ssize_t result)
{
    int error = errno;
    printf("%s: %zd %s\n", what, result, result < 0 ? strerror(error) : "");
}

/* What a program asks of the socket itself. */
static void names(void)
{
    struct sockaddr_nl name = {0};
    socklen_t length = sizeof name;
    int value = 0;
    int first = open_socket(SOCK_RAW | SOCK_CLOEXEC), second = open_socket(SOCK_DGRAM);
    getsockname(first, (struct sockaddr *)&name, &length);
    printf("first: %d bytes, family %d, its process's number: %d, groups %x\n", length,
           name.nl_family, name.nl_pid == (uint32_t)getpid(), name.nl_groups);
    getsockname(second, (struct sockaddr *)&name, &length);
    printf("second: another number: %d\n", name.nl_pid != (uint32_t)getpid() && name.nl_pid != 0);
    length = sizeof value;
    for (int i = 0; i < 2; i++) {
        getsockopt(i ? second : first, SOL_SOCKET, SO_TYPE, &value, &length);
        printf("type %d", value);
        getsockopt(first, SOL_SOCKET, SO_DOMAIN, &value, &length);
        printf(" domain %d", value);
        getsockopt(first, SOL_SOCKET, SO_PROTOCOL, &value, &length);
        printf(" protocol %d\n", value);
    }
    int unbound = socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK, NETLINK_ROUTE);
    length = sizeof name;
    getsockname(unbound, (struct sockaddr *)&name, &length);
    printf("unbound: %u\n", name.nl_pid);
    said("nothing to read", recv(unbound, &value, sizeof value, 0));
    name = (struct sockaddr_nl){.nl_family = AF_NETLINK, .nl_pid = 77, .nl_groups = RTMGRP_LINK};
    printf("bind: %d\n", bind(unbound, (struct sockaddr *)&name, sizeof name));
    getsockname(unbound, (struct sockaddr *)&name, &length);
    printf("bound: %u groups %x\n", name.nl_pid, name.nl_groups);
    length = sizeof name;
    getpeername(unbound, (struct sockaddr *)&name, &length);
    printf("peer: %d bytes %d %u\n", length, name.nl_family, name.nl_pid);
    name = (struct sockaddr_nl){.nl_family = AF_INET};
    said("bind of another family", bind(second, (struct sockaddr *)&name, sizeof name));
    said("short bind", bind(second, (struct sockaddr *)&name, 4));
    name = (struct sockaddr_nl){.nl_family = AF_NETLINK, .nl_pid = 77};
    said("bind to a number in use", bind(second, (struct sockaddr *)&name, sizeof name));
    int third = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    said("the same, unbound", bind(third, (struct sockaddr *)&name, sizeof name));
    name.nl_pid = 78;
    said("connect to another", connect(third, (struct sockaddr *)&name, sizeof name));
    name.nl_pid = 0;
    said("connect to the kernel", connect(third, (struct sockaddr *)&name, sizeof name));
    said("listen", listen(second, 1));
    said("stream", socket(AF_NETLINK, SOCK_STREAM, NETLINK_ROUTE));
}

/* The ways of waiting and of reading. */
static void waiting(void)
{
    static char small[100], buffer[BUFFER];
    struct rtgenmsg body = {.rtgen_family = AF_INET};
    int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    struct pollfd p = {fd, POLLIN | POLLOUT, 0};
    poll(&p, 1, 0);
    printf("poll: %x\n", p.revents);
    struct request r = begin(RTM_GETADDR, NLM_F_DUMP, &body, sizeof body);
    printf("write: %d\n", write(fd, &r, r.header.nlmsg_len) == (ssize_t)r.header.nlmsg_len);
    poll(&p, 1, 1000);
    printf("poll: %x\n", p.revents);
    int set = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN};
    epoll_ctl(set, EPOLL_CTL_ADD, fd, &event);
    printf("epoll: %d\n", epoll_wait(set, &event, 1, 1000));
    ssize_t whole = recv(fd, NULL, 0, MSG_PEEK | MSG_TRUNC);
    ssize_t again = recv(fd, small, sizeof small, MSG_PEEK | MSG_TRUNC);
    printf("peek: %d %d\n", whole > 100, whole == again);
    pid_t child = fork();
    if (child == 0) { /* the socket is its as well */
        ssize_t got = read(fd, buffer, sizeof buffer);
        printf("in a child: %d\n", got == whole);
        fflush(stdout);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    int copy = dup(fd);
    close(fd);
    while (recv(copy, buffer, sizeof buffer, MSG_DONTWAIT) > 0) {}
    struct iovec parts[2] = {{&r.header, sizeof r.header}, {r.body, sizeof body}};
    printf("writev: %zd\n", writev(copy, parts, 2));
    struct sockaddr_nl from = {0};
    socklen_t length = sizeof from;
    ssize_t got = recvfrom(copy, small, sizeof small, MSG_TRUNC, (struct sockaddr *)&from, &length);
    printf("truncated: %d, from %d bytes %d %u\n", got == whole, length, from.nl_family,
           from.nl_pid);
    while (recv(copy, buffer, sizeof buffer, MSG_DONTWAIT) > 0) {}
    printf("empty: %d\n", errno);
    close(copy);
    said("closed", recv(copy, buffer, sizeof buffer, 0));
}

int main(int count, char **words)
{
    const char *which = count > 1 ? words[1] : "";
    setvbuf(stdout, NULL, _IOLBF, 0);
    alarm(20);
    if (strcmp(which, "names") == 0) {
        names();
    } else if (strcmp(which, "waiting") == 0) {
        waiting();
    } else {
        int fd = open_socket(SOCK_RAW | SOCK_CLOEXEC);
        if (strcmp(which, "links") == 0) {
            dump(fd, RTM_GETLINK, AF_UNSPEC);
            get_link(fd, 1, NULL);
            get_link(fd, 2, NULL);
            get_link(fd, 0, "eth0");
        } else if (strcmp(which, "addresses") == 0) {
            dump(fd, RTM_GETADDR, AF_INET);
            dump(fd, RTM_GETADDR, AF_INET6);
            dump(fd, RTM_GETADDR, AF_UNSPEC);
        } else if (strcmp(which, "routes") == 0) {
            dump(fd, RTM_GETROUTE, AF_INET);
            dump(fd, RTM_GETROUTE, AF_INET6);
            dump(fd, RTM_GETROUTE, AF_UNSPEC);
        } else if (strcmp(which, "get") == 0) {
            get_routes(fd, count - 2, words + 2);
        } else if (strcmp(which, "strict") == 0) {
            strict(fd);
        } else if (strcmp(which, "refused") == 0) {
            refused(fd);
        } else {
            return 2;
        }
    }
    return 0;
}
