/* Between the files of the device: device.c (descriptor, arriving frames) and offload.c
 * (leaving frames, checksums). Nobody else includes it.
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

/* device.c: one frame to the kernel; the first part is its offload header. */
void device_write(const struct iovec *parts, int count);

#endif
