/* First of the objects with shared state (section.h): aligns both sections to a page of any
 * machine. Linked before lwIP. */
#include "arena.h"
#pragma clang section bss = "lwip_bss" data = "lwip_data"
_Alignas(ARENA_PAGE) char cse_shared_bss_begin[64];
_Alignas(ARENA_PAGE) char cse_shared_data_begin[64] = {1};
