/* lwIP's sizes that lwipopts.h makes run-time settings; shared state, like lwIP's own. */
#include "section.h"

#include "lwip/opt.h"

uint32_t cse_tcp_mss = 1460, cse_tcp_window = 1 << 20, cse_tcp_send_buffer = 1 << 20;
