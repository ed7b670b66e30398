/* Memory inside the arena, and lwIP's mem.h on top of it. All under the instance's lock.
 *
 * Free lists by size kind (powers of two and one step between), fed from a bump pointer: packets
 * and control blocks come in few sizes, and nothing is touched before it is used. Large free
 * blocks are kept until none has been freed for a while, then heap_trim punches their pages out.
 */
#include "arena.h"
#include "instance.h"

#include "lwip/mem.h"

#include <string.h>
#include <sys/mman.h>

enum { CLASSES = 40, SMALLEST = 48, TRIM_FROM = 16384, HEAP_MAGIC = 0x48454150 };

/* In fuzzing builds every byte outside what was asked for is poisoned. Not elsewhere: the shadow
 * is of one process, the arena of several. */
#ifdef CSE_HEAP_GUARDS
#include <sanitizer/asan_interface.h>
#define GUARD(place, size)   ASAN_POISON_MEMORY_REGION(place, size)
#define UNGUARD(place, size) ASAN_UNPOISON_MEMORY_REGION(place, size)
#else
#define GUARD(place, size)   ((void)0)
#define UNGUARD(place, size) ((void)0)
#endif

struct block {
    uint32_t magic;
    uint16_t kind;
    uint16_t free;
    struct block *next; /* while free */
};
enum { HEADER = 16 };

struct heap {
    char *next;
    size_t used;
    struct block *free[CLASSES];
    uint32_t dirty;        /* large blocks freed since the last trim */
    uint32_t dirty_before; /* as many at the look before */
};

_Static_assert(sizeof(struct heap) <= sizeof instance->heap_state, "heap state");
#define HEAP ((struct heap *)&instance->heap_state)

/* 48, 64, 96, 128, 192, … */
static size_t kind_size(int kind)
{
    size_t power = (size_t)32 << (kind + 1) / 2;
    return kind % 2 != 0 ? power : power + power / 2;
}

static int kind_of(size_t size)
{
    int kind = 0;
    while (kind < CLASSES && kind_size(kind) < size) kind++;
    return kind;
}

void heap_init(void)
{
    memset(HEAP, 0, sizeof *HEAP);
    HEAP->next = (char *)ARENA_BASE + (sizeof *instance + 4095) / 4096 * 4096;
}

void *heap_alloc(size_t size)
{
    int kind = kind_of(size + HEADER);
    if (kind >= CLASSES) return NULL;
    struct block *block = HEAP->free[kind];
    if (block != NULL) {
        HEAP->free[kind] = block->next;
    } else {
        size_t whole = kind_size(kind);
        if (HEAP->next + whole > (char *)ARENA_KEPT) return NULL;
        block = (struct block *)HEAP->next;
        UNGUARD(block, HEADER);
        HEAP->next += whole;
        block->magic = HEAP_MAGIC;
        block->kind = (uint16_t)kind;
    }
    block->free = 0;
    HEAP->used += kind_size(kind);
    GUARD((char *)block + HEADER, kind_size(kind) - HEADER);
    UNGUARD((char *)block + HEADER, size);
    return (char *)block + HEADER;
}

void heap_free(void *memory)
{
    if (memory == NULL) return;
    struct block *block = (struct block *)((char *)memory - HEADER);
    if (block->magic != HEAP_MAGIC || block->free) {
        cse_lwip_assertion(block->free ? "freed twice" : "freed a stray pointer");
        return;
    }
    block->free = 1;
    block->next = HEAP->free[block->kind];
    HEAP->free[block->kind] = block;
    HEAP->used -= kind_size(block->kind);
    GUARD((char *)block + HEADER, kind_size(block->kind) - HEADER);
    if (kind_size(block->kind) >= TRIM_FROM) HEAP->dirty++;
}

size_t heap_used(void)
{
    return HEAP->used;
}

/* One look: the pages of large free blocks go back where none was freed since the look before. */
void heap_trim(void)
{
    bool settled = HEAP->dirty == HEAP->dirty_before;
    HEAP->dirty_before = HEAP->dirty;
    if (HEAP->dirty == 0 || !settled) return;
    HEAP->dirty = HEAP->dirty_before = 0;
    for (int kind = kind_of(TRIM_FROM); kind < CLASSES; kind++)
        for (struct block *block = HEAP->free[kind]; block != NULL; block = block->next) {
            uintptr_t from = ((uintptr_t)block + sizeof *block + 4095) & ~(uintptr_t)4095;
            uintptr_t to = ((uintptr_t)block + kind_size(kind)) & ~(uintptr_t)4095;
            if (to > from) madvise((void *)from, to - from, MADV_REMOVE);
        }
}

/* ---- lwIP's allocator (its mem.c is not compiled) ---------------------------------------- */

void mem_init(void) {}

void *mem_malloc(mem_size_t size)
{
    return heap_alloc(size);
}

void *mem_calloc(mem_size_t count, mem_size_t size)
{
    void *memory = heap_alloc((size_t)count * size);
    if (memory != NULL) memset(memory, 0, (size_t)count * size);
    return memory;
}

void mem_free(void *memory)
{
    heap_free(memory);
}

void *mem_trim(void *memory, mem_size_t size)
{
    return memory;
}
