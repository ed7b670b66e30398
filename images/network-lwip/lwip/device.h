/* Between the files of the device: device.c (descriptor, arriving frames), offload.c (leaving
 * frames, checksums), packet_ring.c and packet_filter.c (the packet socket instead of a tap).
 * Nobody else includes it.
 */
#ifndef CSE_DEVICE_H
#define CSE_DEVICE_H

#include "instance.h"

#include <sys/uio.h>

enum { ETHERNET_HEADER = 14, PARTS_MAX = 256 };

/* struct virtio_net_hdr, without depending on the machine's headers */
struct offload_header {
    uint8_t flags, gso_type;
    uint16_t header_length, gso_size, checksum_start, checksum_offset;
};
enum { NEEDS_CHECKSUM = 1, DATA_VALID = 2 };
enum { GSO_NONE = 0, GSO_TCPV4 = 1, GSO_TCPV6 = 4 };

/* offload.c */
void offload_send(struct pbuf *frame);
void offload_flush(void);
bool offload_checksum_good(const struct pbuf *packet);

/* device.c */
/* One frame to the kernel; the first part is its offload header. */
void device_write(const struct iovec *parts, int count);
/* A whole frame that lies in memory of the device. */
void device_take(const char *frame, size_t length, const struct offload_header *offload);
/* One frame that waits at the descriptor; false when none does. */
bool device_read_one(void);

/* packet_ring.c */
bool ring_is_given(void);
int ring_setup(void);
bool ring_write(const struct iovec *parts, int count);
bool ring_read(int limit);
void ring_flush(void);

/* packet_filter.c */
int filter_setup(void);
void filter_start(void);
void filter_refresh(void);
void filter_sees(const char *frame, size_t size);

#endif
