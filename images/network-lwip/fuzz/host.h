/* What the fuzz targets of the network element share: an instance in this process, on a device and
 * a clock that the target has in its hands. */
#ifndef CSE_FUZZ_HOST_H
#define CSE_FUZZ_HOST_H

#include "../../_core/core.h"
#include "../lwip/instance.h"

extern const struct cse_host fuzz_host; /* a broker that gives a device, settings of an example */
extern const struct cse_stack *fuzz_stack;
extern int fuzz_device;   /* the kernel's side of it */
extern long fuzz_time_us; /* passes only where an input says so */

/* Makes the instance, once. */
void fuzz_start(const struct cse_host *host);
/* Everything as in a new instance, with a listener and a datagram socket of each family. */
void fuzz_start_over(void);

#endif
