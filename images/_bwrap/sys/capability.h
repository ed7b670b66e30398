/* What bubblewrap takes of libcap, so that it can be linked statically without it: names, and the
 * two system calls, which libc has and declares nowhere. */
#ifndef CSE_BWRAP_CAPABILITY_H
#define CSE_BWRAP_CAPABILITY_H

#include <linux/capability.h>
#include <stddef.h>
#include <strings.h>

typedef int cap_value_t;

int capget(cap_user_header_t header, cap_user_data_t data);
int capset(cap_user_header_t header, const cap_user_data_t data);

/* 0, or -1 where there is no such capability; in any case of letters, as libcap does. */
static inline int cap_from_name(const char *name, cap_value_t *value)
{
    static const char *const names[] = {
        "chown",
        "dac_override",
        "dac_read_search",
        "fowner",
        "fsetid",
        "kill",
        "setgid",
        "setuid",
        "setpcap",
        "linux_immutable",
        "net_bind_service",
        "net_broadcast",
        "net_admin",
        "net_raw",
        "ipc_lock",
        "ipc_owner",
        "sys_module",
        "sys_rawio",
        "sys_chroot",
        "sys_ptrace",
        "sys_pacct",
        "sys_admin",
        "sys_boot",
        "sys_nice",
        "sys_resource",
        "sys_time",
        "sys_tty_config",
        "mknod",
        "lease",
        "audit_write",
        "audit_control",
        "setfcap",
        "mac_override",
        "mac_admin",
        "syslog",
        "wake_alarm",
        "block_suspend",
        "audit_read",
        "perfmon",
        "bpf",
        "checkpoint_restore",
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strncasecmp(name, "cap_", 4) == 0 && strcasecmp(name + 4, names[i]) == 0)
            return *value = (cap_value_t)i, 0;
    return -1;
}

#endif
