/* Included before everything in each file that holds state of the stack: its variables go to two
 * sections of their own, whose pages start-up replaces by pages of the arena (arena.c). Such a
 * variable must never hold the address of code, of a constant or of another variable.
 */
#pragma clang section bss = "lwip_bss" data = "lwip_data"
