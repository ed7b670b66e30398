/* lwIP's sizes that lwipopts.h makes run-time settings; shared state, like lwIP's own. */
#include "section.h"

#include "lwip/opt.h"

uint32_t cse_tcp_initial_window = 10, cse_tcp_delayed_ack_ms = 40, cse_tcp_congestion = 1;
uint32_t cse_tcp_rto_least_us = 200000;
uint32_t cse_tcp_mss = 1460, cse_tcp_window = 4 << 20, cse_tcp_send_buffer = 4 << 20;
