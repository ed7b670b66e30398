/* What unlock.c (the store unlocked), encrypted.c (the plain tree) and sealing.c (changes, on their
 * way back) share. */
#ifndef CSE_FS_ENCRYPTED_H
#define CSE_FS_ENCRYPTED_H

#include "crypt.h"
#include "fs.h"

struct fs_encrypted {
    const char *mount, *key_file, *key_environment;
    char store[PATH_MAX];     /* the encrypted directory */
    char directory[PATH_MAX]; /* private/fs/e<n> */
    char tree[PATH_MAX];      /* the plain one, in it */
    const struct cse_crypt_provider *crypt;
    const struct cse_crypt_keys *keys;
    int state, error; /* as of fs_ready */
    pid_t opener;
};

/* Unlocks the store at first use. 0 or negative errno. */
int fs_encrypted_ready(struct fs_encrypted *encrypted);
/* Owner, mode and times of what is in the store, for what shows it. */
void fs_encrypted_copy_attributes(const char *to, const struct stat *status);
/* The store's path of what is at `rel`; a long name's own file goes to `sidecar` ("" for others).
 */
int fs_encrypted_path(const struct fs_encrypted *encrypted, const char *rel, char *out,
                      char *sidecar, char *hidden);
int fs_encrypted_id(const char *directory, uint8_t id[CSE_CRYPT_ID]);
int fs_encrypted_new_id(const struct fs_encrypted *encrypted, const char *directory);
/* A mark that inode `inode` of the tree has one of the properties below. */
void fs_encrypted_mark_path(const struct fs_encrypted *encrypted, const char *property,
                            uint64_t inode, char *out);
bool fs_encrypted_marked(const struct fs_encrypted *encrypted, const char *property,
                         uint64_t inode);
int fs_encrypted_mark(const struct fs_encrypted *encrypted, const char *property, uint64_t inode,
                      const char *text);
void fs_encrypted_unmark(const struct fs_encrypted *encrypted, const char *property,
                         uint64_t inode);
#define FS_LISTED "listed" /* a directory: the tree has all of it */
#define FS_HOLLOW "hollow" /* a file: its content is in the store only */
#define FS_DIRTY  "dirty"  /* a file: opened for writing; the text is process and path */
/* Number n's mount; NULL behind the last. */
struct fs_encrypted *fs_encrypted_number(int n);
/* Whatever processes that have died left dirty. */
void fs_encrypted_recover(struct fs_encrypted *encrypted);

#endif
