/* DNS look-ups by c-ares, made to wait: one channel a look-up, so nothing is shared by threads or
 * inherited by fork.
 *
 * Loaded and called by overlay/lookup.c. Its socket calls are ordinary ones: the loader binds them
 * to the overlay like the program's own.
 */
#include "dns.h"

#include <ares.h>
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

enum { SERVER_TIMEOUT_MS = 2000, SERVER_TRIES = 2, SOCKETS_MAX = 32 };

/* The sockets that c-ares has open, and what it waits for on each. */
struct waiting {
    struct pollfd polled[SOCKETS_MAX];
    nfds_t count;
};

struct answer {
    bool done;
    int status;
    char *text;
    size_t text_size;
    union cse_address *addresses;
    int room, count;
};

static void on_socket(void *context, ares_socket_t socket, int readable, int writable)
{
    struct waiting *waiting = context;
    nfds_t at = 0;
    while (at < waiting->count && waiting->polled[at].fd != socket) at++;
    if (!readable && !writable) {
        if (at < waiting->count) waiting->polled[at] = waiting->polled[--waiting->count];
        return;
    }
    if (at == SOCKETS_MAX) return; /* c-ares' own timeouts still run */
    if (at == waiting->count) waiting->count++;
    short events = (short)((readable ? POLLIN : 0) | (writable ? POLLOUT : 0));
    waiting->polled[at] = (struct pollfd){socket, events, 0};
}

static ares_channel_t *open_channel(const char *servers, struct waiting *waiting)
{
    waiting->count = 0;
    struct ares_options options = {.timeout = SERVER_TIMEOUT_MS,
                                   .tries = SERVER_TRIES,
                                   .lookups = "b",
                                   .sock_state_cb = on_socket,
                                   .sock_state_cb_data = waiting};
    int given = ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_LOOKUPS | ARES_OPT_SOCK_STATE_CB;
    ares_channel_t *channel;
    /* Counted by c-ares; there is no matching clean-up because other threads may be in here. */
    if (ares_library_init(ARES_LIB_INIT_ALL) != ARES_SUCCESS) return NULL;
    if (ares_init_options(&channel, &options, given) != ARES_SUCCESS) return NULL;
    if (servers != NULL && *servers != '\0' &&
        ares_set_servers_csv(channel, servers) != ARES_SUCCESS) {
        ares_destroy(channel);
        return NULL;
    }
    return channel;
}

static void wait_for(ares_channel_t *channel, const struct waiting *waiting,
                     const struct answer *answer)
{
    while (!answer->done) {
        /* A copy: the list changes while c-ares works through what is ready. */
        struct waiting now = *waiting;
        struct timeval limit = {SERVER_TIMEOUT_MS / 1000, 0}, left;
        struct timeval *next = ares_timeout(channel, &limit, &left);
        int ready =
            poll(now.polled, now.count, (int)(next->tv_sec * 1000 + next->tv_usec / 1000 + 1));
        if (ready <= 0) ares_process_fd(channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
        for (nfds_t i = 0; ready > 0 && i < now.count; i++) {
            bool in = now.polled[i].revents & (POLLIN | POLLERR | POLLHUP);
            bool out = now.polled[i].revents & POLLOUT;
            if (in || out)
                ares_process_fd(channel, in ? now.polled[i].fd : ARES_SOCKET_BAD,
                                out ? now.polled[i].fd : ARES_SOCKET_BAD);
        }
    }
}

static int result_of(const struct answer *answer)
{
    switch (answer->status) {
    case ARES_SUCCESS: return answer->count;
    case ARES_ENODATA:
    case ARES_ENOTFOUND:
    case ARES_EBADNAME: return 0;
    case ARES_ENOMEM: return -ENOMEM;
    default: return -EAGAIN;
    }
}

static void on_addresses(void *argument, int status, int timeouts, struct ares_addrinfo *found)
{
    struct answer *answer = argument;
    (void)timeouts;
    answer->status = status;
    answer->done = true;
    if (status != ARES_SUCCESS) return;
    for (struct ares_addrinfo_node *node = found->nodes; node; node = node->ai_next) {
        bool known = node->ai_family == AF_INET || node->ai_family == AF_INET6;
        if (!known || answer->count >= answer->room) continue;
        union cse_address *address = &answer->addresses[answer->count++];
        memset(address, 0, sizeof *address);
        memcpy(address, node->ai_addr,
               node->ai_family == AF_INET ? sizeof address->in : sizeof address->in6);
    }
    const char *name =
        found->cnames != NULL && found->name == NULL ? found->cnames->name : found->name;
    if (name != NULL && answer->text_size > 0) {
        strncpy(answer->text, name, answer->text_size - 1);
        answer->text[answer->text_size - 1] = '\0';
    }
    ares_freeaddrinfo(found);
}

EXPORT int cse_dns_addresses(const char *servers, const char *name, int family, char *canonical,
                             size_t canonical_size, union cse_address *addresses, int room)
{
    struct answer answer = {
        .text = canonical, .text_size = canonical_size, .addresses = addresses, .room = room};
    struct waiting waiting;
    ares_channel_t *channel = open_channel(servers, &waiting);
    if (channel == NULL) return -ENOMEM;
    struct ares_addrinfo_hints hints = {.ai_family = family, .ai_flags = ARES_AI_CANONNAME};
    ares_getaddrinfo(channel, name, NULL, &hints, on_addresses, &answer);
    wait_for(channel, &waiting, &answer);
    ares_destroy(channel);
    return result_of(&answer);
}

static void on_name(void *argument, int status, int timeouts, struct hostent *found)
{
    struct answer *answer = argument;
    (void)timeouts;
    answer->status = status;
    answer->done = true;
    if (status != ARES_SUCCESS || found->h_name == NULL) return;
    strncpy(answer->text, found->h_name, answer->text_size - 1);
    answer->text[answer->text_size - 1] = '\0';
    answer->count = 1;
}

EXPORT int cse_dns_name(const char *servers, const union cse_address *address, char *name,
                        size_t size)
{
    struct answer answer = {.text = name, .text_size = size};
    struct waiting waiting;
    ares_channel_t *channel = open_channel(servers, &waiting);
    if (channel == NULL) return -ENOMEM;
    if (address->family == AF_INET6)
        ares_gethostbyaddr(channel, &address->in6.sin6_addr, sizeof address->in6.sin6_addr,
                           AF_INET6, on_name, &answer);
    else
        ares_gethostbyaddr(channel, &address->in.sin_addr, sizeof address->in.sin_addr, AF_INET,
                           on_name, &answer);
    wait_for(channel, &waiting, &answer);
    ares_destroy(channel);
    return result_of(&answer);
}
