/* libFuzzer target: a settings file, whatever is in it, up to an instance that works by it. Built
 * by `make -C images fuzz`, run by tests/native/test_net_fuzz.py. The input is the file.
 *
 * The reader is compiled in, as it reads a file but once.
 */
#include "../../_core/settings.c" /* NOLINT(bugprone-suspicious-include) */

#include "host.h"

enum { FRAME_BYTES = 10 + 14 + 20 + 20 };

static char run_directory[] = "/tmp/cse-fuzz-XXXXXX";
static char path[sizeof run_directory + 16];
static size_t mapped;

/* The trace of settings.c goes nowhere. */
int cse_trace_on;

void cse_trace_(const char *function, const char *format, ...)
{
    (void)function, (void)format;
}

void *cse_bind(void **slot, const char *name)
{
    (void)slot, (void)name;
    return (void *)syscall; /* all that settings.c calls */
}

static void touch(const char *key, const char *value, void *count)
{
    *(size_t *)count += strlen(key) + strlen(value) + (size_t)(cse_setting(key) != NULL);
    *(size_t *)count += (size_t)cse_setting_number(key, 0);
}

static void write_file(const uint8_t *data, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size) abort();
    close(fd);
}

static void read_file(size_t size)
{
    if (table != NULL) munmap(table, mapped + 1);
    table = NULL;
    table_size = 0;
    mapped = size;
    load_file(path);
}

/* A SYN to the listener of port 80: options and windows are made by the settings. */
static void connect_once(void)
{
    static const uint8_t syn[FRAME_BYTES] = {
        2,    0,    0,    0,    0, 0,  0,    0,    0,    0, /* checksums are good */
        0x02, 0xc5, 0x0a, 0,    0, 2,  0x02, 0xc5, 0x0a, 0, 0,    3,    8,  0, /* Ethernet */
        0x45, 0,    0,    40,   0, 1,  0,    0,    64,   6, 0x66, 0xcc, 10, 0, 0,    3, 10,   0,
        0,    2,    0x0f, 0xa0, 0, 80, 0,    0,    0,    1, 0,    0,    0,  0, 0x50, 2, 0xff, 0xff};
    char answer[256];
    sigset_t saved;
    if (write(fuzz_device, syn, sizeof syn) != sizeof syn) return;
    instance_lock(&saved);
    device_read(4);
    instance_unlock(&saved);
    while (read(fuzz_device, answer, sizeof answer) > 0) {}
}

int LLVMFuzzerInitialize(int *count, char ***arguments);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *count, char ***arguments)
{
    static struct cse_host host;
    if (mkdtemp(run_directory) == NULL) abort();
    snprintf(path, sizeof path, "%s/network.conf", run_directory);
    snprintf(kind_name, sizeof kind_name, "network");
    host = fuzz_host;
    fuzz_start(&host);
    host.setting = cse_setting;
    host.setting_number = cse_setting_number;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t count = 0;
    write_file(data, size);
    read_file(size);
    cse_settings_each("", touch, &count);
    instance_read_settings();
    fuzz_start_over();
    connect_once();
    return 0;
}
