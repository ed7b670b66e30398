/* Many connections, each with a stream of its own in both directions at once, checked byte for
 * byte. Used by test_net_loss.py and test_net_scale.py.
 *
 *   flows serve PORT CONNECTIONS              until that many have come and gone
 *   flows connect ADDRESS PORT CONNECTIONS AT_ONCE BYTES_MOST
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct plan {
    uint32_t seed_up, seed_down, bytes_up, bytes_down;
};

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static uint8_t byte_at(uint32_t seed, uint32_t position)
{
    uint32_t mix = (seed + position / 4) * 2654435761u;
    mix ^= mix >> 15;
    mix *= 2246822519u;
    return (uint8_t)(mix >> 8 * (position % 4));
}

/* Both directions at once; ends with the peer's end of file. The side that closes last says by that
 * that it has all: a program that ended before could take along what was still on its way. */
static void exchange(int fd, uint32_t seed_out, uint32_t bytes_out, uint32_t seed_in,
                     uint32_t bytes_in, int closes_last)
{
    uint32_t sent = 0, got = 0;
    int ended = 0;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    while (sent < bytes_out || !ended) {
        uint8_t buffer[16384];
        struct pollfd ready = {fd, (short)((ended ? 0 : POLLIN) | (sent < bytes_out ? POLLOUT : 0)),
                               0};
        if (poll(&ready, 1, 100000) != 1) die("poll");
        if (ready.revents & POLLOUT) {
            uint32_t count = bytes_out - sent < sizeof buffer ? bytes_out - sent : sizeof buffer;
            for (uint32_t i = 0; i < count; i++) buffer[i] = byte_at(seed_out, sent + i);
            ssize_t done = send(fd, buffer, count, MSG_NOSIGNAL);
            if (done < 0 && errno != EAGAIN) die("send");
            if (done > 0) sent += (uint32_t)done;
            if (sent == bytes_out && !closes_last) shutdown(fd, SHUT_WR);
        }
        if (ended || !(ready.revents & (POLLIN | POLLHUP | POLLERR))) continue;
        ssize_t done = recv(fd, buffer, sizeof buffer, 0);
        if (done < 0 && errno != EAGAIN) die("recv");
        for (ssize_t i = 0; i < done; i++)
            if (buffer[i] != byte_at(seed_in, got + (uint32_t)i)) {
                printf("wrong byte at %u\n", got + (uint32_t)i);
                exit(1);
            }
        if (done > 0) got += (uint32_t)done;
        ended = done == 0;
    }
    if (closes_last) shutdown(fd, SHUT_WR);
    if (got != bytes_in) {
        printf("%u bytes instead of %u\n", got, bytes_in);
        exit(1);
    }
}

static void all(int fd, void *bytes, size_t size, int out)
{
    for (size_t at = 0; at < size;) {
        ssize_t done = out ? send(fd, (char *)bytes + at, size - at, MSG_NOSIGNAL)
                           : recv(fd, (char *)bytes + at, size - at, 0);
        if (done <= 0) die(out ? "send plan" : "receive plan");
        at += (size_t)done;
    }
}

static void *serve_one(void *argument)
{
    int fd = (int)(intptr_t)argument;
    struct plan plan;
    all(fd, &plan, sizeof plan, 0);
    exchange(fd, plan.seed_down, plan.bytes_down, plan.seed_up, plan.bytes_up, 1);
    close(fd);
    return NULL;
}

static void serve(int port, int connections)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0) die("bind");
    if (listen(fd, 128) != 0) die("listen");
    pthread_t *threads = calloc((size_t)connections, sizeof *threads);
    for (int i = 0; i < connections; i++) {
        int taken = accept(fd, NULL, NULL);
        if (taken < 0) die("accept");
        pthread_create(&threads[i], NULL, serve_one, (void *)(intptr_t)taken);
    }
    for (int i = 0; i < connections; i++) pthread_join(threads[i], NULL);
    printf("served %d\n", connections);
}

static struct sockaddr_in server;
static int next_connection, connections;
static uint32_t bytes_most;

static void *connect_some(void *unused)
{
    int number;
    while ((number = __atomic_fetch_add(&next_connection, 1, __ATOMIC_RELAXED)) < connections) {
        unsigned seed = (unsigned)number * 7919u + 1;
        struct plan plan = {.seed_up = (uint32_t)rand_r(&seed),
                            .seed_down = (uint32_t)rand_r(&seed)};
        plan.bytes_up = (uint32_t)rand_r(&seed) % bytes_most;
        plan.bytes_down = (uint32_t)rand_r(&seed) % bytes_most;
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(fd, (struct sockaddr *)&server, sizeof server) != 0) die("connect");
        all(fd, &plan, sizeof plan, 1);
        exchange(fd, plan.seed_up, plan.bytes_up, plan.seed_down, plan.bytes_down, 0);
        close(fd);
    }
    return unused;
}

int main(int count, char **words)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (count == 4 && strcmp(words[1], "serve") == 0) {
        serve(atoi(words[2]), atoi(words[3]));
        return 0;
    }
    if (count != 7) return 2;
    server =
        (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(words[3]))};
    inet_pton(AF_INET, words[2], &server.sin_addr);
    connections = atoi(words[4]);
    int at_once = atoi(words[5]);
    bytes_most = (uint32_t)atoi(words[6]);
    pthread_t threads[64];
    for (int i = 0; i < at_once; i++) pthread_create(&threads[i], NULL, connect_some, NULL);
    for (int i = 0; i < at_once; i++) pthread_join(threads[i], NULL);
    printf("connected %d\n", connections);
    return 0;
}
