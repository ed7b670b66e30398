/* zip: the central directory gives the index, each member is read where it lies.
 *
 * A reader of our own because random access is the point: libarchive's goes through members in
 * order. Stored and deflated members, zip64, Unix modes, links and times; encrypted members and
 * other methods fail when they are opened. Layout: PKWARE APPNOTE 6.3.10, extra field 0x5455
 * (times). Every number read is checked against the size of the file before it is used.
 */
#include "build.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <zlib.h>

enum {
    END_SIZE = 22,
    END64_SIZE = 56,
    LOCATOR_SIZE = 20,
    CENTRAL_SIZE = 46,
    LOCAL_SIZE = 30,
    COMMENT_MAX = 65535,
    MADE_BY_UNIX = 3,
    METHOD_STORED = 0,
    METHOD_DEFLATED = 8,
    BLOCK = 32 << 10, /* in the heap's small sizes: a fresh mapping costs more than the work */
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

/* ---- the directory ------------------------------------------------------------------------- */

struct directory {
    uint64_t at, size, count;
};

/* Finds the central directory through the end record; false when there is none that fits. */
static bool find_directory(int archive, uint64_t size, struct directory *found)
{
    if (size < END_SIZE) return false;
    uint64_t tail = size < END_SIZE + COMMENT_MAX ? size : END_SIZE + COMMENT_MAX;
    unsigned char *text = malloc(tail);
    bool good = text != NULL && read_all(archive, text, tail, size - tail) == 0;
    uint64_t end = 0;
    if (good) {
        good = false;
        for (uint64_t i = tail - END_SIZE + 1; i-- > 0 && !good;) {
            /* The comment must end where the file ends, or a comment could hold a false record. */
            if (memcmp(text + i, "PK\5\6", 4) == 0 && i + END_SIZE + u16(text + i + 20) == tail) {
                good = true;
                end = size - tail + i;
                *found =
                    (struct directory){u32(text + i + 16), u32(text + i + 12), u16(text + i + 10)};
            }
        }
    }
    free(text);
    if (!good) return false;
    unsigned char locator[LOCATOR_SIZE], end64[END64_SIZE];
    if (end >= LOCATOR_SIZE && read_all(archive, locator, LOCATOR_SIZE, end - LOCATOR_SIZE) == 0 &&
        memcmp(locator, "PK\6\7", 4) == 0 && u64(locator + 8) <= size - END64_SIZE &&
        read_all(archive, end64, END64_SIZE, u64(locator + 8)) == 0 &&
        memcmp(end64, "PK\6\6", 4) == 0)
        *found = (struct directory){u64(end64 + 48), u64(end64 + 40), u64(end64 + 32)};
    return found->at <= size && found->size <= size - found->at &&
           found->count <= found->size / CENTRAL_SIZE;
}

bool zip_recognised(int archive, uint64_t size)
{
    unsigned char start[4];
    return size >= END_SIZE && read_all(archive, start, 4, 0) == 0 &&
           (memcmp(start, "PK\3\4", 4) == 0 || memcmp(start, "PK\5\6", 4) == 0);
}

static time_t dos_time(uint16_t date, uint16_t clock)
{
    struct tm parts = {
        .tm_year = (date >> 9) + 80,
        .tm_mon = ((date >> 5) & 15) - 1,
        .tm_mday = date & 31,
        .tm_hour = clock >> 11,
        .tm_min = (clock >> 5) & 63,
        .tm_sec = (clock & 31) * 2,
        .tm_isdst = -1,
    };
    return mktime(&parts); /* zip keeps local time, unless the extra field says better */
}

/* The extra fields of a central entry: zip64 sizes and Unix modification time. */
static void read_extra(const unsigned char *extra, size_t length, struct member *member)
{
    while (length >= 4) {
        size_t part = u16(extra + 2);
        if (part > length - 4) return;
        const unsigned char *at = extra + 4, *end = at + part;
        if (u16(extra) == 1) {
            uint64_t *wide[] = {&member->size, &member->stored_size, &member->source_at};
            for (int i = 0; i < 3; i++)
                if (*wide[i] == UINT32_MAX && end - at >= 8) {
                    *wide[i] = u64(at);
                    at += 8;
                }
        } else if (u16(extra) == 0x5455 && part >= 5 && (extra[4] & 1)) {
            member->mtime = (int32_t)u32(extra + 5);
        }
        extra += 4 + part;
        length -= 4 + part;
    }
}

/* Where the data of a member begins; 0 when its local header is not there. */
static uint64_t data_start(int archive, uint64_t local)
{
    unsigned char header[LOCAL_SIZE];
    if (local > INT64_MAX - LOCAL_SIZE || read_all(archive, header, LOCAL_SIZE, local) != 0 ||
        memcmp(header, "PK\3\4", 4) != 0)
        return 0;
    return local + LOCAL_SIZE + u16(header + 26) + u16(header + 28);
}

static uint32_t mode_of(const unsigned char *central, const char *name, size_t length)
{
    uint32_t mode = central[5] == MADE_BY_UNIX ? u32(central + 38) >> 16 : 0;
    bool directory = length > 0 && name[length - 1] == '/';
    if ((mode & S_IFMT) == 0) mode = (mode & 07777) | (directory ? S_IFDIR : S_IFREG);
    if ((mode & 0777) == 0) mode |= directory ? 0755 : 0644;
    return mode;
}

/* The text of a symbolic link, which is its member's content, through a file in memory. */
static bool link_text(int archive, const struct member *member, char *text)
{
    if (member->size == 0 || member->size >= PATH_MAX) return false;
    const struct cse_index_entry entry = {.size = member->size,
                                          .stored_size = member->stored_size,
                                          .method = member->method,
                                          .crc = member->crc};
    uint64_t at = data_start(archive, member->source_at);
    if (at == 0) return false;
    if (member->method == METHOD_STORED) {
        if (read_all(archive, text, member->size, at) != 0) return false;
    } else {
        unsigned char packed[PATH_MAX];
        size_t stored = entry.stored_size < sizeof packed ? entry.stored_size : sizeof packed;
        if (read_all(archive, packed, stored, at) != 0) return false;
        z_stream stream = {.next_in = packed,
                           .avail_in = (uInt)stored,
                           .next_out = (unsigned char *)text,
                           .avail_out = (uInt)member->size};
        if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) return false;
        int got = inflate(&stream, Z_FINISH);
        inflateEnd(&stream);
        if (got != Z_STREAM_END && stream.avail_out != 0) return false;
    }
    text[member->size] = '\0';
    return strlen(text) == member->size &&
           crc32(0, (const Bytef *)text, (uInt)member->size) == member->crc;
}

static int add_central(struct builder *b, int archive, const unsigned char *central,
                       const char *name)
{
    char target[PATH_MAX] = "";
    size_t length = strlen(name);
    struct member member = {
        .name = name,
        .target = target,
        .size = u32(central + 24),
        .stored_size = u32(central + 20),
        .source_at = u32(central + 42),
        .method = u16(central + 10),
        .crc = u32(central + 16),
        .mtime = dos_time(u16(central + 14), u16(central + 12)),
        .mode = mode_of(central, name, length),
    };
    read_extra(central + CENTRAL_SIZE + u16(central + 28), u16(central + 30), &member);
    if (u16(central + 8) & 1) member.method = UINT16_MAX; /* encrypted: found out when opened */
    if (S_ISLNK(member.mode) && !link_text(archive, &member, target)) {
        b->say(b->context, name, "is a symbolic link that cannot be read");
        return 0;
    }
    uint32_t number;
    return builder_add(b, &member, &number);
}

int zip_build(struct builder *b, int archive)
{
    struct directory directory;
    b->format = CSE_FORMAT_ZIP;
    if (!find_directory(archive, b->archive_size, &directory)) {
        b->say(b->context, "", "is damaged: its zip directory is missing or does not fit");
        return EIO;
    }
    unsigned char *text = malloc(directory.size + 1);
    if (text == NULL) return ENOMEM;
    int error = read_all(archive, text, directory.size, directory.at);
    uint64_t at = 0, seen = 0;
    for (; error == 0 && seen < directory.count; seen++) {
        const unsigned char *central = text + at;
        uint64_t left = directory.size - at;
        if (left < CENTRAL_SIZE || memcmp(central, "PK\1\2", 4) != 0) break;
        uint64_t name = u16(central + 28),
                 all = CENTRAL_SIZE + name + u16(central + 30) + u16(central + 32);
        if (all > left) break;
        char copy[UINT16_MAX + 1];
        memcpy(copy, central + CENTRAL_SIZE, name);
        copy[name] = '\0';
        if (strlen(copy) != name)
            b->say(b->context, copy, "has a zero byte in its name");
        else
            error = add_central(b, archive, central, copy);
        at += all;
    }
    if (error == 0 && seen != directory.count) {
        b->say(b->context, "", "is damaged: its zip directory ends too early");
        error = EIO;
    }
    free(text);
    return error;
}

/* ---- contents ------------------------------------------------------------------------------ */

struct job {
    z_stream stream;
    unsigned char in[BLOCK], out[BLOCK];
};

static int copy_stored(int archive, uint64_t at, const struct cse_index_entry *entry, int out,
                       struct job *job, uLong *crc)
{
    for (uint64_t done = 0; done < entry->size;) {
        size_t part = entry->size - done < BLOCK ? (size_t)(entry->size - done) : BLOCK;
        int error = read_all(archive, job->in, part, at + done);
        if (error == 0) error = write_all(out, job->in, part, done);
        if (error != 0) return error;
        *crc = crc32(*crc, job->in, (uInt)part);
        done += part;
    }
    return 0;
}

static int inflate_member(int archive, uint64_t at, const struct cse_index_entry *entry, int out,
                          struct job *job, uLong *crc)
{
    if (inflateInit2(&job->stream, -MAX_WBITS) != Z_OK) return ENOMEM;
    uint64_t taken = 0, given = 0;
    int got = Z_OK, error = 0;
    while (got != Z_STREAM_END && error == 0) {
        if (job->stream.avail_in == 0) {
            size_t part =
                entry->stored_size - taken < BLOCK ? (size_t)(entry->stored_size - taken) : BLOCK;
            if (part == 0) break;
            error = read_all(archive, job->in, part, at + taken);
            if (error != 0) break;
            taken += part;
            job->stream.next_in = job->in;
            job->stream.avail_in = (uInt)part;
        }
        job->stream.next_out = job->out;
        job->stream.avail_out = BLOCK;
        got = inflate(&job->stream, Z_NO_FLUSH);
        size_t part = BLOCK - job->stream.avail_out;
        if ((got != Z_OK && got != Z_STREAM_END) || part > entry->size - given) {
            error = EIO;
        } else if (part > 0) {
            error = write_all(out, job->out, part, given);
            *crc = crc32(*crc, job->out, (uInt)part);
            given += part;
        }
    }
    inflateEnd(&job->stream);
    if (error == 0 && (got != Z_STREAM_END || given != entry->size)) error = EIO;
    return error;
}

static int inflate_to(int archive, uint64_t at, const struct cse_index_entry *entry, int out,
                      const char **why)
{
    struct job *job = malloc(sizeof *job);
    if (job == NULL) return ENOMEM;
    memset(&job->stream, 0, sizeof job->stream);
    uLong crc = crc32(0, NULL, 0);
    int error;
    *why = "is damaged in the archive";
    if (entry->method == METHOD_STORED) {
        error = copy_stored(archive, at, entry, out, job, &crc);
    } else if (entry->method == METHOD_DEFLATED) {
        error = inflate_member(archive, at, entry, out, job, &crc);
    } else {
        *why =
            entry->method == UINT16_MAX ? "is encrypted" : "is compressed with an unknown method";
        error = EIO;
    }
    if (error == 0 && crc != entry->crc) {
        *why = "has a wrong checksum";
        error = EIO;
    }
    free(job);
    return error;
}

int zip_fill(int archive, const struct cse_index_header *index, const struct cse_index_entry *entry,
             int out, cse_tree_say *say, void *context)
{
    const char *why = "has no local header in the archive";
    uint64_t at = data_start(archive, entry->source_at);
    int error = at == 0 ? EIO : inflate_to(archive, at, entry, out, &why);
    if (error != 0) say(context, cse_index_text(index, entry->path), why);
    return error;
}
