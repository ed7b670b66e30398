/* squashfs 4.0: its own tables give the index, each file's blocks are read where they lie.
 *
 * A reader of our own: the package with libsquashfuse cannot be had from Debian's mirrors in a
 * version that builds here, and only the reading half of it is wanted. Layout: the kernel's
 * fs/squashfs/squashfs_fs.h. Tables are chains of metadata blocks of 8 KiB; a place in one is the
 * offset of a block and a position in what it unpacks to. Tails of files share fragment blocks, so
 * the last one that was unpacked is kept with the reader between fills. zlib, xz, zstd and lz4;
 * lzo and lzma are refused. Every number from the image is checked before it is used; a directory
 * is entered once, whatever the image claims.
 */
#include "build.h"
#include "unpack.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    SUPER_BYTES = 96,
    META_BYTES = 8192,
    META_SLOTS = 32,
    BLOCK_MIN = 4096,
    BLOCK_MAX = 1 << 20,
    PATH_ROOM = 4096,
    NAME_ROOM = 257,
    DIRECTORY_LIMIT = 512 << 20, /* bytes of one directory's list */
    BLOCKS_AT_ONCE = 512,
};
enum { STORED = 1 << 24, META_STORED = 1 << 15, FRAGMENT_ENTRIES = 512 };
#define NO_FRAGMENT UINT32_MAX
enum type { DIRECTORY = 1, FILE_, LINK, LONG_DIRECTORY = 8, LONG_FILE, LONG_LINK };

struct place { /* in a chain of metadata blocks */
    uint64_t block;
    uint32_t offset;
};

struct meta {
    uint64_t at, next; /* at 0: empty */
    uint32_t length;
    unsigned char data[META_BYTES];
};

struct squashfs {
    int fd;
    const struct cse_index_header *index; /* between fills: names the archive */
    uint64_t size, inodes_at, directories_at, fragments_at, root;
    uint32_t block_bytes, fragment_count, inode_count;
    uint16_t compressor;
    uint64_t fragment; /* 1 + number of the one in fragment_data */
    uint32_t fragment_length;
    unsigned char *fragment_data, *packed, *block; /* block_bytes each */
    struct meta cache[META_SLOTS];
};

struct inode {
    uint16_t type;
    uint32_t mode, mtime, number, links;
    uint64_t size, blocks_at;
    uint32_t fragment, fragment_offset;
    struct place rest; /* directory: its list; file: its block sizes; link: its text */
};

static uint16_t u16(const unsigned char *at)
{
    return (uint16_t)(at[0] | at[1] << 8);
}

static uint32_t u32(const unsigned char *at)
{
    return u16(at) | (uint32_t)u16(at + 2) << 16;
}

static uint64_t u64(const unsigned char *at)
{
    return u32(at) | (uint64_t)u32(at + 4) << 32;
}

/* ---- blocks -------------------------------------------------------------------------------- */

/* A data or fragment block into `to` of block_bytes; its length, or -1. `size` as the image has
 * it, with the mark of one that is stored as it is. */
static ssize_t read_block(struct squashfs *s, uint64_t at, uint32_t size, unsigned char *to)
{
    uint32_t stored = size & (STORED - 1);
    if (size >> 25 || stored > s->block_bytes || at > s->size || stored > s->size - at) return -1;
    bool as_it_is = size & STORED;
    if (read_all(s->fd, as_it_is ? to : s->packed, stored, at) != 0) return -1;
    if (as_it_is) return stored;
    return squashfs_unpack((enum compressor)s->compressor, s->packed, stored, to, s->block_bytes);
}

/* The metadata block at `at`; NULL: damaged. */
static const struct meta *read_meta(struct squashfs *s, uint64_t at)
{
    /* Two halves: reading a directory takes from its own block and from that of the inodes in turn.
     */
    unsigned half = at >= s->directories_at ? META_SLOTS / 2 : 0;
    struct meta *meta = &s->cache[half + (at ^ at >> 7) % (META_SLOTS / 2)];
    unsigned char header[2], packed[META_BYTES];
    if (at < SUPER_BYTES || at > s->size - 2) return NULL;
    if (meta->at == at) return meta;
    meta->at = 0;
    if (read_all(s->fd, header, 2, at) != 0) return NULL;
    uint32_t size = u16(header) & (META_STORED - 1);
    if (size == 0 || size > META_BYTES || size > s->size - at - 2) return NULL;
    bool as_it_is = u16(header) & META_STORED;
    if (read_all(s->fd, as_it_is ? meta->data : packed, size, at + 2) != 0) return NULL;
    ssize_t length = as_it_is ? (ssize_t)size
                              : squashfs_unpack((enum compressor)s->compressor, packed, size,
                                                meta->data, META_BYTES);
    if (length <= 0) return NULL;
    meta->length = (uint32_t)length;
    meta->next = at + 2 + size;
    meta->at = at;
    return meta;
}

/* `size` bytes of a table, and on. */
static bool take(struct squashfs *s, struct place *place, void *out, size_t size)
{
    char *to = out;
    while (size > 0) {
        const struct meta *meta = read_meta(s, place->block);
        if (meta == NULL || place->offset > meta->length) return false;
        size_t part = meta->length - place->offset;
        if (part > size) part = size;
        memcpy(to, meta->data + place->offset, part);
        to += part;
        size -= part;
        place->offset += (uint32_t)part;
        if (place->offset == meta->length) {
            place->block = meta->next;
            place->offset = 0;
        }
    }
    return true;
}

/* ---- the image ----------------------------------------------------------------------------- */

static void free_image(struct squashfs *s)
{
    if (s == NULL) return;
    free(s->fragment_data);
    free(s->packed);
    free(s->block);
    free(s);
}

/* NULL, and *why and *error say what is wrong. */
static struct squashfs *open_image(int archive, uint64_t size, const char **why, int *error)
{
    unsigned char super[SUPER_BYTES];
    struct squashfs *s = calloc(1, sizeof *s);
    *error = ENOMEM;
    *why = "cannot be read for want of memory";
    if (s == NULL) return NULL;
    *error = EIO;
    *why = "is damaged: its squashfs tables do not fit";
    bool good = read_all(archive, super, SUPER_BYTES, 0) == 0 && u16(super + 28) == 4;
    s->fd = archive;
    s->size = size;
    s->inode_count = u32(super + 4);
    s->block_bytes = u32(super + 12);
    s->fragment_count = u32(super + 16);
    s->compressor = u16(super + 20);
    s->root = u64(super + 32);
    s->inodes_at = u64(super + 64);
    s->directories_at = u64(super + 72);
    s->fragments_at = u64(super + 80);
    if (good && (s->compressor == LZMA || s->compressor == LZO)) {
        *why = "is a squashfs image compressed with lzo or lzma, which are not supported; make it "
               "with gzip, xz, zstd or lz4";
        good = false;
    } else if (good) {
        good = s->compressor >= GZIP && s->compressor <= ZSTD && s->block_bytes >= BLOCK_MIN &&
               s->block_bytes <= BLOCK_MAX && (s->block_bytes & (s->block_bytes - 1)) == 0 &&
               u64(super + 40) <= size && s->inodes_at < size && s->directories_at < size &&
               (s->fragment_count == 0 || s->fragments_at < size);
    }
    if (good) {
        s->fragment_data = malloc(s->block_bytes);
        s->packed = malloc(s->block_bytes);
        s->block = malloc(s->block_bytes);
        if (s->fragment_data != NULL && s->packed != NULL && s->block != NULL) return s;
        *error = ENOMEM;
        *why = "cannot be read for want of memory";
    }
    free_image(s);
    return NULL;
}

bool squashfs_recognised(int archive, uint64_t size)
{
    unsigned char start[4];
    return size >= SUPER_BYTES && read_all(archive, start, 4, 0) == 0 &&
           memcmp(start, "hsqs", 4) == 0;
}

/* The inode that `reference` names: a metadata block of the table << 16 | position in it. */
static bool read_inode(struct squashfs *s, uint64_t reference, struct inode *inode)
{
    unsigned char head[16], body[40];
    if (reference >> 16 > s->size) return false;
    struct place place = {s->inodes_at + (reference >> 16), (uint32_t)(reference & 0xffff)};
    memset(inode, 0, sizeof *inode);
    if (!take(s, &place, head, sizeof head)) return false;
    inode->type = u16(head);
    inode->mode = u16(head + 2) & 07777;
    inode->mtime = u32(head + 8);
    inode->number = u32(head + 12);
    inode->links = 1;
    inode->fragment = NO_FRAGMENT;
    switch (inode->type) {
    case DIRECTORY:
        if (!take(s, &place, body, 16)) return false;
        inode->size = u16(body + 8);
        inode->rest = (struct place){s->directories_at + u32(body), u16(body + 10)};
        break;
    case LONG_DIRECTORY:
        if (!take(s, &place, body, 24)) return false;
        inode->size = u32(body + 4);
        inode->rest = (struct place){s->directories_at + u32(body + 8), u16(body + 18)};
        break;
    case FILE_:
        if (!take(s, &place, body, 16)) return false;
        inode->blocks_at = u32(body);
        inode->fragment = u32(body + 4);
        inode->fragment_offset = u32(body + 8);
        inode->size = u32(body + 12);
        inode->rest = place;
        break;
    case LONG_FILE:
        if (!take(s, &place, body, 40)) return false;
        inode->blocks_at = u64(body);
        inode->size = u64(body + 8);
        inode->links = u32(body + 24);
        inode->fragment = u32(body + 28);
        inode->fragment_offset = u32(body + 32);
        inode->rest = place;
        break;
    case LINK:
    case LONG_LINK:
        if (!take(s, &place, body, 8)) return false;
        inode->links = u32(body);
        inode->size = u32(body + 4);
        inode->rest = place;
        break;
    default: break; /* devices and the like: left out by the builder */
    }
    return true;
}

static uint32_t type_mode(uint16_t type)
{
    static const uint32_t modes[] = {0,       S_IFDIR, S_IFREG, S_IFLNK,
                                     S_IFBLK, S_IFCHR, S_IFIFO, S_IFSOCK};
    if (type >= LONG_DIRECTORY) type -= 7;
    return type < sizeof modes / sizeof modes[0] ? modes[type] : 0;
}

/* ---- the index ----------------------------------------------------------------------------- */

struct walk {
    struct builder *b;
    struct squashfs *image;
    uint32_t *first; /* by inode number: 1 + the entry that has it, for further names of it */
    uint32_t inode_count;
    uint64_t names;
    char path[PATH_ROOM];
};

static int damaged(const struct walk *walk, const char *what)
{
    walk->b->say(walk->b->context, walk->path, what);
    return EIO;
}

static int walk_directory(struct walk *walk, const struct inode *directory, size_t length);

static int add_inode(struct walk *walk, uint64_t reference, size_t length)
{
    struct inode inode;
    char target[PATH_MAX] = "";
    if (walk->names++ > walk->b->limits->max_entries) { /* the builder counts each name once */
        damaged(walk, "exceeds max_entries; the archive is refused");
        return EFBIG;
    }
    if (!read_inode(walk->image, reference, &inode))
        return damaged(walk, "has no inode that can be read; the archive is refused");
    uint32_t slot = inode.number < walk->inode_count ? inode.number : 0;
    struct member member = {
        .name = walk->path,
        .target = target,
        .mode = type_mode(inode.type) | inode.mode,
        .size = S_ISREG(type_mode(inode.type)) ? inode.size : 0,
        .mtime = inode.mtime,
        .source_at = reference,
    };
    if (S_ISDIR(member.mode) && (slot == 0 || walk->first[slot] != 0)) {
        damaged(walk, "is a directory of another name as well; left out");
        return 0;
    }
    if (S_ISLNK(member.mode) &&
        (inode.size >= sizeof target || !take(walk->image, &inode.rest, target, inode.size)))
        return damaged(walk, "is a symbolic link that cannot be read; the archive is refused");
    if (S_ISREG(member.mode) && inode.links > 1 && slot > 0 && walk->first[slot] != 0) {
        const struct cse_index_entry *first = &walk->b->entries[walk->first[slot] - 1];
        member.is_hard_link = true;
        member.size = 0;
        snprintf(target, sizeof target, "%s", walk->b->strings + first->path);
    }
    uint32_t number;
    int error = builder_add(walk->b, &member, &number);
    if (error == 0 && number != CSE_NO_ENTRY && slot > 0 && walk->first[slot] == 0)
        walk->first[slot] = number + 1;
    if (error == 0 && S_ISDIR(member.mode)) error = walk_directory(walk, &inode, length);
    return error;
}

/* The names of a directory come in runs that share a block of the inode table. */
static int walk_directory(struct walk *walk, const struct inode *directory, size_t length)
{
    unsigned char head[12], entry[8];
    struct place place = directory->rest;
    if (directory->size > DIRECTORY_LIMIT) return damaged(walk, "is too large a directory");
    for (uint64_t left = directory->size < 3 ? 0 : directory->size - 3; left > 0;) {
        if (left < sizeof head || !take(walk->image, &place, head, sizeof head))
            return damaged(walk, "is a damaged directory; the archive is refused");
        left -= sizeof head;
        for (uint64_t count = (uint64_t)u32(head) + 1; count > 0; count--) {
            char name[NAME_ROOM];
            if (left < sizeof entry || !take(walk->image, &place, entry, sizeof entry))
                return damaged(walk, "is a damaged directory; the archive is refused");
            left -= sizeof entry;
            size_t size = (size_t)u16(entry + 6) + 1;
            if (size >= sizeof name || size > left || !take(walk->image, &place, name, size))
                return damaged(walk, "is a damaged directory; the archive is refused");
            left -= size;
            name[size] = '\0';
            if (strlen(name) != size || strchr(name, '/') != NULL || strcmp(name, ".") == 0) {
                damaged(walk, "has a name in it that is none");
                continue;
            }
            if (length + size + 2 > sizeof walk->path) {
                damaged(walk, "has too long a name in it");
                continue;
            }
            size_t slash = length > 0;
            if (slash) walk->path[length] = '/';
            memcpy(walk->path + length + slash, name, size + 1);
            int error =
                add_inode(walk, (uint64_t)u32(head + 4) << 16 | u16(entry), length + slash + size);
            walk->path[length] = '\0';
            if (error != 0) return error;
        }
    }
    return 0;
}

int squashfs_build(struct builder *b, int archive)
{
    const char *why;
    int error;
    b->format = CSE_FORMAT_SQUASHFS;
    struct squashfs *image = open_image(archive, b->archive_size, &why, &error);
    if (image == NULL) {
        b->say(b->context, "", why);
        return error;
    }
    struct walk *walk = calloc(1, sizeof *walk);
    error = ENOMEM;
    if (walk != NULL) {
        uint64_t most = b->limits->max_entries < UINT32_MAX ? b->limits->max_entries : UINT32_MAX;
        walk->b = b;
        walk->image = image;
        walk->inode_count = 1 + (image->inode_count < most ? image->inode_count : (uint32_t)most);
        walk->first = calloc(walk->inode_count, sizeof *walk->first);
    }
    if (walk != NULL && walk->first != NULL) error = add_inode(walk, image->root, 0);
    if (error == EIO) b->say(b->context, "", "is damaged: a squashfs table cannot be read");
    if (walk != NULL) free(walk->first);
    free(walk);
    free_image(image);
    return error;
}

/* ---- contents ------------------------------------------------------------------------------ */

/* The reader of the last fill: whoever takes it owns it (as in libarchive.c). */
static struct squashfs *kept;

static struct squashfs *take_image(int archive, const struct cse_index_header *index,
                                   const char **why, int *error)
{
    struct stat status;
    struct squashfs *image = __atomic_exchange_n(&kept, NULL, __ATOMIC_ACQ_REL);
    if (image != NULL && image->index == index) {
        image->fd = archive;
        return image;
    }
    free_image(image);
    *error = EIO;
    if (fstat(archive, &status) != 0) return NULL;
    image = open_image(archive, (uint64_t)status.st_size, why, error);
    if (image == NULL) return NULL;
    image->index = index;
    return image;
}

/* Where fragment block `number` lies and how it is stored. */
static bool find_fragment(struct squashfs *s, uint32_t number, uint64_t *at, uint32_t *size)
{
    unsigned char pointer[8], entry[16];
    uint64_t slot = s->fragments_at + (uint64_t)number / FRAGMENT_ENTRIES * 8;
    if (number >= s->fragment_count || slot > s->size - 8) return false;
    if (read_all(s->fd, pointer, 8, slot) != 0) return false;
    struct place place = {u64(pointer), number % FRAGMENT_ENTRIES * 16};
    if (!take(s, &place, entry, sizeof entry)) return false;
    *at = u64(entry);
    *size = u32(entry + 8);
    return true;
}

/* The tail of a file, which lies in a block with those of others. */
static int write_tail(struct squashfs *s, const struct inode *inode, uint64_t done, int out)
{
    uint64_t left = inode->size - done;
    if (s->fragment != (uint64_t)inode->fragment + 1) {
        uint64_t at;
        uint32_t size;
        s->fragment = 0;
        if (!find_fragment(s, inode->fragment, &at, &size)) return EIO;
        ssize_t length = read_block(s, at, size, s->fragment_data);
        if (length < 0) return EIO;
        s->fragment_length = (uint32_t)length;
        s->fragment = (uint64_t)inode->fragment + 1;
    }
    if (inode->fragment_offset > s->fragment_length ||
        left > s->fragment_length - inode->fragment_offset)
        return EIO;
    return write_all(out, s->fragment_data + inode->fragment_offset, (size_t)left, done);
}

static int write_content(struct squashfs *s, struct inode *inode, int out)
{
    unsigned char sizes[BLOCKS_AT_ONCE * 4];
    bool tail = inode->fragment != NO_FRAGMENT;
    uint64_t blocks = inode->size / s->block_bytes, done = 0, at = inode->blocks_at;
    if (!tail && inode->size % s->block_bytes != 0) blocks++;
    while (blocks > 0) {
        size_t part = blocks < BLOCKS_AT_ONCE ? (size_t)blocks : BLOCKS_AT_ONCE;
        if (!take(s, &inode->rest, sizes, part * 4)) return EIO;
        blocks -= part;
        for (size_t i = 0; i < part; i++) {
            uint32_t size = u32(sizes + i * 4);
            uint64_t left = inode->size - done;
            size_t wanted = left < s->block_bytes ? (size_t)left : s->block_bytes;
            if (size != 0) { /* else a hole */
                ssize_t length = read_block(s, at, size, s->block);
                if (length < 0 || (size_t)length != wanted) return EIO;
                int error = write_all(out, s->block, wanted, done);
                if (error != 0) return error;
                at += size & (STORED - 1);
            }
            done += wanted;
        }
    }
    return tail && done < inode->size ? write_tail(s, inode, done, out) : 0;
}

int squashfs_fill(int archive, const struct cse_index_header *index,
                  const struct cse_index_entry *entry, int out, cse_tree_say *say, void *context)
{
    const char *why = "is damaged in the image";
    int error;
    struct inode inode;
    struct squashfs *image = take_image(archive, index, &why, &error);
    if (image != NULL) {
        error = read_inode(image, entry->source_at, &inode) && S_ISREG(type_mode(inode.type)) &&
                        inode.size == entry->size
                    ? write_content(image, &inode, out)
                    : EIO;
        free_image(__atomic_exchange_n(&kept, image, __ATOMIC_ACQ_REL));
    }
    if (error != 0) say(context, cse_index_text(index, entry->path), why);
    return error;
}
