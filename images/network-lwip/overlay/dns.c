/* A stub resolver (RFC 1035) over the application's own sockets: A and PTR queries, to the servers of
 * the binding (`dns.0`…), else of /etc/resolv.conf; UDP first, TCP when an answer is truncated.
 *
 * Own and small rather than a library, because it must use the overlay's sockets and nothing of the
 * program's. Answers come from strangers: every offset is checked, compression is bounded. Called
 * by lookup.c in the program's thread.
 */
#include "net.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    SERVERS_MAX = 3,
    MESSAGE_MAX = 4096,
    NAME_MAX_BYTES = 256,
    TYPE_A = 1,
    TYPE_PTR = 12,
    CLASS_IN = 1,
    TRIES = 2,
    WAIT_MS = 2500,
};

struct servers {
    struct in_addr list[SERVERS_MAX];
    int count;
    char search[512];
};

static void read_resolv_conf(struct servers *servers)
{
    char line[512], text[64];
    FILE *file = fopen("/etc/resolv.conf", "re");
    bool given = servers->count > 0;
    if (file == NULL) return;
    while (fgets(line, sizeof line, file) != NULL) {
        if (!given && servers->count < SERVERS_MAX && sscanf(line, "nameserver %63s", text) == 1 &&
            inet_pton(AF_INET, text, &servers->list[servers->count]) == 1)
            servers->count++;
        if (strncmp(line, "search ", 7) == 0)
            snprintf(servers->search, sizeof servers->search, "%.*s", (int)strcspn(line + 7, "\n"), line + 7);
    }
    fclose(file);
}

static void find_servers(struct servers *servers)
{
    memset(servers, 0, sizeof *servers);
    for (int i = 0; i < SERVERS_MAX; i++) {
        char key[16];
        snprintf(key, sizeof key, "dns.%d", i);
        const char *text = cse_setting(key);
        if (text != NULL && inet_pton(AF_INET, text, &servers->list[servers->count]) == 1)
            servers->count++;
    }
    read_resolv_conf(servers);
}

/* ---- messages -------------------------------------------------------------------------------- */

static unsigned get16(const unsigned char *at)
{
    return (unsigned)at[0] << 8 | at[1];
}

/* Length of the query for `name`, or -1 if it is not a name. */
static int make_query(unsigned char *out, unsigned id, const char *name, int type)
{
    unsigned char *at = out;
    const unsigned char header[12] = {(unsigned char)(id >> 8), (unsigned char)id, 1, 0, 0, 1};
    memcpy(at, header, sizeof header);
    at += sizeof header;
    if (strlen(name) > NAME_MAX_BYTES - 3) return -1;
    while (*name != '\0') {
        size_t length = strcspn(name, ".");
        if (length == 0 || length > 63) return -1;
        *at++ = (unsigned char)length;
        memcpy(at, name, length);
        at += length;
        name += length;
        if (*name == '.') name++;
    }
    const unsigned char end[5] = {0, 0, (unsigned char)type, 0, CLASS_IN};
    memcpy(at, end, sizeof end);
    return (int)(at + sizeof end - out);
}

/* Reads the name at `*at`, moves `*at` behind it. False if the message lies. */
static bool read_name(const unsigned char *message, int length, int *at, char *out)
{
    int from = *at, used = 0, jumps = 0;
    bool jumped = false;
    for (;;) {
        if (from >= length) return false;
        int part = message[from];
        if ((part & 0xc0) == 0xc0) {
            if (from + 1 >= length || ++jumps > 32) return false;
            if (!jumped) *at = from + 2;
            jumped = true;
            from = (part & 0x3f) << 8 | message[from + 1];
            continue;
        }
        if (part > 63 || from + 1 + part > length || used + part + 2 > NAME_MAX_BYTES) return false;
        if (part == 0) break;
        if (used > 0) out[used++] = '.';
        memcpy(out + used, message + from + 1, (size_t)part);
        used += part;
        from += part + 1;
    }
    out[used] = '\0';
    if (!jumped) *at = from + 1;
    return true;
}

/* What an answer says: addresses into `list`, or a name into `pointer`. A count, 0 no such
 * name, -1 not an answer to this query. */
static int read_answer(const unsigned char *message, int length, const char *asked, int type,
                       struct in_addr *list, int room, char *pointer)
{
    char name[NAME_MAX_BYTES], wanted[NAME_MAX_BYTES];
    int at = 12, found = 0;
    if (length < 12 || !(message[2] & 0x80) || get16(message + 4) != 1) return -1;
    int code = message[3] & 0xf;
    if (code != 0 && code != 3) return -1; /* another server may know */
    if (!read_name(message, length, &at, name) || strcasecmp(name, asked) != 0) return -1;
    at += 4;
    snprintf(wanted, sizeof wanted, "%s", name);
    for (unsigned i = 0; i < get16(message + 6); i++) {
        if (!read_name(message, length, &at, name) || at + 10 > length) return -1;
        unsigned kind = get16(message + at), class = get16(message + at + 2);
        int size = (int)get16(message + at + 8);
        at += 10;
        if (at + size > length) return -1;
        if (class == CLASS_IN && strcasecmp(name, wanted) == 0) {
            int inside = at;
            if (kind == 5 && !read_name(message, length, &inside, wanted)) return -1;
            if (kind == TYPE_A && type == TYPE_A && size == 4 && found < room)
                memcpy(&list[found++], message + at, 4);
            if (kind == TYPE_PTR && type == TYPE_PTR && found == 0) {
                if (!read_name(message, length, &inside, pointer)) return -1;
                found = 1;
            }
        }
        at += size;
    }
    return found;
}

/* ---- exchange -------------------------------------------------------------------------------- */

static bool wait_readable(int fd, int timeout_ms)
{
    struct pollfd waiting = {fd, POLLIN, 0};
    int ready;
    do ready = poll(&waiting, 1, timeout_ms);
    while (ready < 0 && errno == EINTR);
    return ready == 1;
}

static bool read_whole(int fd, unsigned char *out, int size)
{
    for (int got = 0; got < size;) {
        if (!wait_readable(fd, WAIT_MS)) return false;
        ssize_t part = read(fd, out + got, (size_t)(size - got));
        if (part <= 0) return false;
        got += (int)part;
    }
    return true;
}

static int ask_by_tcp(const struct sockaddr_in *server, const unsigned char *query, int size,
                      unsigned char *answer)
{
    unsigned char framed[2 + NAME_MAX_BYTES + 32] = {(unsigned char)(size >> 8), (unsigned char)size};
    int got = -1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    struct timeval limit = {WAIT_MS / 1000, 0};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    memcpy(framed + 2, query, (size_t)size);
    if (connect(fd, (const struct sockaddr *)server, sizeof *server) == 0 &&
        send(fd, framed, (size_t)size + 2, MSG_NOSIGNAL) == size + 2 && read_whole(fd, framed, 2)) {
        int length = (int)get16(framed);
        if (length <= MESSAGE_MAX && read_whole(fd, answer, length)) got = length;
    }
    close(fd);
    return got;
}

/* Length of the answer in `answer`, or -1. */
static int ask(struct in_addr address, const unsigned char *query, int size, unsigned char *answer)
{
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(53), .sin_addr = address};
    int got = -1, fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    if (connect(fd, (struct sockaddr *)&server, sizeof server) == 0 &&
        send(fd, query, (size_t)size, 0) == size) {
        while (wait_readable(fd, WAIT_MS)) {
            ssize_t length = recv(fd, answer, MESSAGE_MAX, MSG_DONTWAIT);
            if (length < 0 && errno != EAGAIN) break; /* refused */
            if (length < 12 || memcmp(answer, query, 2) != 0) continue;
            got = (int)length;
            break;
        }
    }
    close(fd);
    if (got >= 12 && (answer[2] & 0x02)) got = ask_by_tcp(&server, query, size, answer);
    return got;
}

static int query(const struct servers *servers, const char *name, int type, struct in_addr *list,
                 int room, char *pointer)
{
    unsigned char question[NAME_MAX_BYTES + 32], answer[MESSAGE_MAX];
    for (int try = 0; try < TRIES; try++)
        for (int i = 0; i < servers->count; i++) {
            uint16_t id;
            if (syscall(SYS_getrandom, &id, sizeof id, 0) != sizeof id) return -2;
            int size = make_query(question, id, name, type);
            if (size < 0) return -1;
            int got = ask(servers->list[i], question, size, answer);
            int said = got < 0 ? -1 : read_answer(answer, got, name, type, list, room, pointer);
            if (said > 0) return said;
            if (said == 0) return -1;
        }
    return -2;
}

int dns_addresses(const char *name, struct in_addr *list, int room)
{
    struct servers servers;
    char plain[NAME_MAX_BYTES], longer[2 * NAME_MAX_BYTES];
    find_servers(&servers);
    if (servers.count == 0 || strlen(name) >= sizeof plain) return servers.count == 0 ? -2 : -1;
    snprintf(plain, sizeof plain, "%s", name);
    size_t length = strlen(plain);
    bool absolute = length > 0 && plain[length - 1] == '.';
    if (absolute) plain[length - 1] = '\0';
    bool dotted = strchr(plain, '.') != NULL;
    int found = dotted || absolute ? query(&servers, plain, TYPE_A, list, room, NULL) : -1;
    if (found > 0 || absolute) return found;
    char *rest = servers.search, *domain;
    while ((domain = strtok_r(rest, " \t", &rest)) != NULL && found == -1) {
        snprintf(longer, sizeof longer, "%s.%s", plain, domain);
        found = query(&servers, longer, TYPE_A, list, room, NULL);
    }
    return found == -1 && !dotted ? query(&servers, plain, TYPE_A, list, room, NULL) : found;
}

int dns_name(struct in_addr address, char *name, size_t size)
{
    struct servers servers;
    char question[64], found[NAME_MAX_BYTES];
    const unsigned char *b = (const unsigned char *)&address;
    find_servers(&servers);
    if (servers.count == 0) return -2;
    snprintf(question, sizeof question, "%u.%u.%u.%u.in-addr.arpa", b[3], b[2], b[1], b[0]);
    int got = query(&servers, question, TYPE_PTR, NULL, 0, found);
    if (got > 0) snprintf(name, size, "%s", found);
    return got;
}
