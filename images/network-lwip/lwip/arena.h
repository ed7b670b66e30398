/* The arena: the memory in which the whole state of one instance lies, shared by all processes
 * of the application. See arena.c. */
#ifndef CSE_ARENA_H
#define CSE_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The same in every program, so that pointers inside the arena hold everywhere. */
#define ARENA_BASE     0x2c5e00000000UL
#define ARENA_HEAP_MAX (1UL << 30)
/* The heap's upper end is left to a reset, for what it keeps (reset.c). */
#define ARENA_KEPT (ARENA_BASE + ARENA_HEAP_MAX - (64UL << 20))
#define ARENA_PAGE 65536 /* at least a page of any machine */

/* Makes the arena, or maps the one behind `fd`. Returns its descriptor (not yet protected), or a
 * negative errno. */
int arena_create(void);
int arena_attach(int fd);
/* The shared variables as they were when the library was loaded, put back. */
void arena_restore_sections(void);

/* heap.c: memory for lwIP and the socket layer; under the instance's lock. */
void heap_init(void);
void *heap_alloc(size_t size);
void heap_free(void *block);
size_t heap_used(void);
/* Gives the pages of large free blocks back to the kernel. */
void heap_trim(void);

#endif
