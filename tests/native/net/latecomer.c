/* A thread sleeps in epoll_wait while another puts the first private socket into the set, for
 * test_net_waiting.py: it hears of that socket, and of nothing that the program did not ask for.
 *
 * Erlang's way: its poll thread sleeps before there is any socket.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ROUNDS = 20, LISTENER = 1000, CONNECTION = 1001 };

static int set;

/* Takes each connection and each message, and says what it is told otherwise. */
static void *serve(void *given)
{
    int connection = -1, messages = 0;
    char word[16];
    while (messages < ROUNDS) {
        struct epoll_event events[4], wanted = {.events = EPOLLIN, .data.u64 = CONNECTION};
        int count = epoll_wait(set, events, 4, 10000);
        if (count <= 0) printf("epoll_wait: %d\n", count);
        if (count <= 0) break;
        for (int i = 0; i < count; i++) {
            uint64_t data = events[i].data.u64;
            if (data == LISTENER) {
                connection = accept(*(int *)given, NULL, NULL);
                epoll_ctl(set, EPOLL_CTL_ADD, connection, &wanted);
            } else if (data == CONNECTION) {
                ssize_t got = recv(connection, word, sizeof word, 0);
                if (got <= 0) return NULL;
                messages++;
                send(connection, word, (size_t)got, 0);
            } else {
                printf("an event that nobody asked for\n");
            }
        }
    }
    printf("%d messages\n", messages);
    return NULL;
}

int main(void)
{
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct epoll_event wanted = {.events = EPOLLIN, .data.u64 = LISTENER};
    socklen_t length = sizeof name;
    pthread_t thread;
    int listener = -1;
    alarm(20);
    set = epoll_create1(EPOLL_CLOEXEC);
    pthread_create(&thread, NULL, serve, &listener);
    usleep(100000); /* it sleeps */
    listener = socket(AF_INET, SOCK_STREAM, 0);
    bind(listener, (struct sockaddr *)&name, length);
    listen(listener, 5);
    getsockname(listener, (struct sockaddr *)&name, &length);
    epoll_ctl(set, EPOLL_CTL_ADD, listener, &wanted);
    int client = socket(AF_INET, SOCK_STREAM, 0);
    printf("connect: %d\n", connect(client, (struct sockaddr *)&name, length));
    for (int i = 0; i < ROUNDS; i++) {
        char word[16] = {0};
        send(client, "hello", 5, 0);
        if (recv(client, word, 5, MSG_WAITALL) != 5 || strcmp(word, "hello") != 0) return 3;
    }
    pthread_join(thread, NULL);
    return 0;
}
