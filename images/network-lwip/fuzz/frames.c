/* libFuzzer target: frames as the device gives them, with their virtio headers, up to lwIP and the
 * sockets. Built by `make -C images fuzz`, run by tests/native/test_net_fuzz.py.
 *
 * An input is a row of frames: length (2), what to do (1), virtio header (10), Ethernet frame.
 * What a fuzzer cannot guess is put right where `what to do` says so: checksums, the numbers that
 * the peer of a connection would know.
 */
#include "host.h"

#include "lwip/priv/tcp_priv.h"

#include <string.h>
#include <unistd.h>

enum { VIRTIO_HEADER = 10, ETHERNET = 14, FRAME_MAX = 65536 + VIRTIO_HEADER, FRAMES_MAX = 64 };
enum { FIX_IP = 1, VOUCH = 2, FIX_TCP = 4, TICK = 8, TO_US = 16 };

static const uint8_t own_mac[] = {0x02, 0xc5, 0x0a, 0, 0, 2}; /* as in host.c */
static uint8_t frame[FRAME_MAX], answer[FRAME_MAX];
static struct {
    uint32_t sequence, acknowledged;
    uint16_t ports[2];
} last; /* TCP segment that the stack sent */

/* ---- frames --------------------------------------------------------------------------------- */

static uint16_t sum_of(const uint8_t *at, size_t size)
{
    uint32_t sum = 0;
    for (size_t i = 0; i + 1 < size; i += 2) sum += (uint32_t)(at[i] << 8 | at[i + 1]);
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

static void put16(uint8_t *at, uint16_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static void put32(uint8_t *at, uint32_t value)
{
    put16(at, (uint16_t)(value >> 16));
    put16(at + 2, (uint16_t)value);
}

static uint32_t get32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* Where TCP's header is in an Ethernet frame, or NULL. */
static uint8_t *tcp_in(uint8_t *ethernet, size_t size)
{
    uint8_t *ip = ethernet + ETHERNET;
    if (size >= ETHERNET + 40 && ethernet[12] == 8 && ip[0] == 0x45 && ip[9] == 6) return ip + 20;
    if (size >= ETHERNET + 60 && ethernet[12] == 0x86 && ip[6] == 6) return ip + 40;
    return NULL;
}

/* Everything that the stack has sent; the last TCP segment's numbers are kept. */
static void drain(void)
{
    for (;;) {
        ssize_t got = read(fuzz_device, answer, sizeof answer);
        if (got <= VIRTIO_HEADER) return;
        const uint8_t *tcp = tcp_in(answer + VIRTIO_HEADER, (size_t)got - VIRTIO_HEADER);
        if (tcp == NULL) continue;
        last.sequence = get32(tcp + 4);
        last.acknowledged = get32(tcp + 8);
        if (tcp[13] & (TCP_SYN | TCP_FIN)) last.sequence++;
        memcpy(last.ports, tcp, sizeof last.ports);
    }
}

static void put_right(uint8_t *bytes, size_t size, uint8_t what)
{
    uint8_t *ethernet = bytes + VIRTIO_HEADER;
    size_t length = size - VIRTIO_HEADER;
    if (what & VOUCH) bytes[0] |= 2; /* DATA_VALID */
    if (length < ETHERNET) return;
    if (what & TO_US) memcpy(ethernet, own_mac, sizeof own_mac);
    uint8_t *tcp = (what & FIX_TCP) != 0 ? tcp_in(ethernet, length) : NULL;
    if (tcp != NULL) { /* relative to what the stack expects */
        put32(tcp + 4, last.acknowledged + get32(tcp + 4));
        put32(tcp + 8, last.sequence + get32(tcp + 8));
        memcpy(tcp, &last.ports[1], 2);
        memcpy(tcp + 2, &last.ports[0], 2);
    }
    uint8_t *ip = ethernet + ETHERNET;
    size_t header = length >= ETHERNET + 20 ? (size_t)(ip[0] & 15) * 4 : 0;
    if ((what & FIX_IP) && ethernet[12] == 8 && header >= 20 && length >= ETHERNET + header) {
        put16(ip + 10, 0);
        put16(ip + 10, sum_of(ip, header));
    }
}

static void feed(size_t size, uint8_t what)
{
    sigset_t saved;
    put_right(frame, size, what);
    if (write(fuzz_device, frame, size) != (ssize_t)size) return;
    instance_lock(&saved);
    device_read(4);
    if (what & TICK) fuzz_time_us += 300 * 1000;
    if (what & TICK) clock_run();
    instance_unlock(&saved);
    drain();
}

int LLVMFuzzerInitialize(int *count, char ***arguments);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *count, char ***arguments)
{
    fuzz_start(&fuzz_host);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_start_over();
    drain();
    memset(&last, 0, sizeof last);
    for (int i = 0; i < FRAMES_MAX && size >= 3 + VIRTIO_HEADER; i++) {
        size_t length = (size_t)(data[0] << 8 | data[1]) + VIRTIO_HEADER;
        uint8_t what = data[2];
        data += 3, size -= 3;
        if (length > size) length = size;
        memcpy(frame, data, length);
        feed(length, what);
        data += length, size -= length;
    }
    return 0;
}
