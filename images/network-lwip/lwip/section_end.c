/* Last of the objects with shared state (section.h): keeps the sections' last pages free of
 * anything else. Linked after lwIP. */
#include "arena.h"
#pragma clang section bss = "lwip_bss" data = "lwip_data"
_Alignas(ARENA_PAGE) char cse_shared_bss_end[ARENA_PAGE];
_Alignas(ARENA_PAGE) char cse_shared_data_end[ARENA_PAGE] = {1};
