/* The life of one application: start, output, stop, restart with back-off. Called by shim.c.
 *
 * One poll loop, woken only by the kernel: the two output pipes, init's reports, and a signalfd
 * (SIGTERM: stop; SIGCHLD: bubblewrap ended). A stop sends the specification's signal to the
 * program, and SIGKILL to init (with which the kernel ends the whole pid namespace) after the
 * grace time or as soon as the program itself has ended.
 */
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    BACKOFF_MAX_MS = 30000,
    HEALTHY_AFTER_MS = 10000,
    REASON_SIZE = 512,
    RACES_MAX = 8,
    RACE_PAUSE_NS = 10000000
};

struct life {
    const struct spec *spec;
    int directory, spec_fd, announce, signals;
    int gate; /* -1: not held, or not any more */
    bool foreground;
    struct logfile log;
    struct status status;
    /* of the present start */
    struct started at;
    struct stream out, err;
    bool executed, failed, program_ended, stopping, killed, reaped, given_up;
    int bwrap_status;
    int64_t kill_at_ns; /* 0: none */
};

static int64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static void announce(struct life *life, const char *word)
{
    if (life->announce < 0) return;
    dprintf(life->announce, "%s %s\n", word, life->status.reason);
    close(life->announce);
    life->announce = -1;
}

/* Direct children of init: what is left when the program went to the background. */
static int signal_children(struct life *life, int number, pid_t *first)
{
    char path[64], text[4096];
    int count = 0;
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", life->status.init_pid,
             life->status.init_pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0) close(fd);
    if (got <= 0) return 0;
    text[got] = 0;
    for (char *at = text, *end; *at; at = end) {
        pid_t pid = (pid_t)strtol(at, &end, 10);
        if (end == at) break;
        if (pid <= 0) continue;
        if (count++ == 0 && first) *first = pid;
        if (number) kill(pid, number);
    }
    return count;
}

static void end_everything(struct life *life)
{
    if (life->killed) return;
    life->killed = true;
    kill(life->status.init_pid > 0 ? life->status.init_pid : life->at.bwrap, SIGKILL);
}

static void stop(struct life *life)
{
    if (life->stopping) return;
    life->stopping = true;
    life->kill_at_ns = clock_ns() + life->spec->grace_ms * 1000000;
    if (!life->executed || life->spec->stop_signal == SIGKILL)
        end_everything(life);
    else if (!life->program_ended)
        kill(life->status.pid, life->spec->stop_signal);
    else if (signal_children(life, life->spec->stop_signal, NULL) == 0)
        end_everything(life);
}

static void take_signals(struct life *life)
{
    struct signalfd_siginfo info;
    while (read(life->signals, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGTERM || info.ssi_signo == SIGHUP) stop(life);
    }
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        if (pid == life->at.bwrap) life->reaped = true, life->bwrap_status = status;
}

static void let_go_of_gate(struct life *life)
{
    if (life->gate >= 0) close(life->gate);
    life->gate = -1;
}

static void program_started(struct life *life)
{
    life->executed = true;
    let_go_of_gate(life);
    life->status.state = "running";
    life->status.started_ns = now_ns();
    life->status.finished_ns = 0;
    life->status.exit_code = -1;
    life->status.reason[0] = 0;
    status_write(&life->status);
    announce(life, "running");
    if (life->stopping) kill(life->status.pid, life->spec->stop_signal);
}

static void start_failed(struct life *life, const char *step, int error)
{
    const char *program = life->spec->args[0];
    life->failed = true;
    life->given_up = life->gate >= 0 && error == GIVEN_UP;
    if (strcmp(step, "exec") == 0)
        snprintf(life->status.reason, REASON_SIZE, "%.300s: %s", program, strerror(error));
    else if (strcmp(step, "entering the working directory") == 0)
        snprintf(life->status.reason, REASON_SIZE, "working directory %.300s: %s", life->spec->cwd,
                 strerror(error));
    else
        snprintf(life->status.reason, REASON_SIZE, "%.300s: %s", step, strerror(error));
}

static void program_ended(struct life *life, int code)
{
    life->program_ended = true;
    life->status.exit_code = code;
    if (life->stopping)
        end_everything(life);
    else if (code == 0 && signal_children(life, 0, &life->status.pid) > 0)
        status_write(&life->status); /* it lives on in the background under another pid */
}

/* False when init is gone. */
static bool take_report(struct life *life)
{
    struct report report;
    union {
        char space[CMSG_SPACE(sizeof(struct ucred))];
        struct cmsghdr align;
    } control;
    struct iovec vector = {&report, sizeof report};
    struct msghdr message = {.msg_iov = &vector,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof control};
    ssize_t got = recvmsg(life->at.report, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got < 0) return errno == EAGAIN || errno == EINTR;
    if (got == 0) return false;
    if (got != (ssize_t)sizeof report) return true;
    report.step[sizeof report.step - 1] = 0;
    struct cmsghdr *part = CMSG_FIRSTHDR(&message);
    struct ucred sender = {0};
    if (part && part->cmsg_type == SCM_CREDENTIALS) memcpy(&sender, CMSG_DATA(part), sizeof sender);
    switch (report.what) {
    case REPORT_INIT: life->status.init_pid = sender.pid; break;
    case REPORT_PROGRAM: life->status.pid = sender.pid; break;
    case REPORT_STARTED: program_started(life); break;
    case REPORT_FAILED: start_failed(life, report.step, report.value); break;
    case REPORT_ENDED: program_ended(life, report.value); break;
    }
    return true;
}

static void drain(struct life *life, struct stream *stream)
{
    if (stream->fd < 0) return;
    for (;;) {
        struct pollfd ready = {.fd = stream->fd, .events = POLLIN};
        if (poll(&ready, 1, 0) <= 0 || !logfile_take(&life->log, stream)) break;
    }
    logfile_flush(&life->log, stream);
    close(stream->fd);
    stream->fd = -1;
}

/* bubblewrap's own last words are the reason: nothing else has written since. */
static void take_complaint(struct life *life)
{
    char text[401];
    off_t from = life->log.size > 400 ? life->log.size - 400 : 0;
    int fd = openat(life->directory, "log", O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : pread(fd, text, 400, from);
    if (fd >= 0) close(fd);
    if (got <= 0 || life->foreground) return;
    text[got - 1] = 0; /* the newline */
    char *line = strrchr(text, '\n'), *words = strstr(line ? line : text, "stderr F ");
    if (words) snprintf(life->status.reason, REASON_SIZE, "%s", words + strlen("stderr F "));
}

static int until(int64_t when_ns)
{
    if (!when_ns) return -1;
    int64_t left = (when_ns - clock_ns() + 999999) / 1000000;
    return left < 0 ? 0 : left > INT_MAX ? INT_MAX : (int)left;
}

static void run_until_ended(struct life *life)
{
    bool reports = true;
    while (reports || !life->reaped) {
        struct pollfd ready[4] = {{.fd = life->signals, .events = POLLIN},
                                  {.fd = reports ? life->at.report : -1, .events = POLLIN},
                                  {.fd = life->out.fd, .events = POLLIN},
                                  {.fd = life->err.fd, .events = POLLIN}};
        int count = poll(ready, 4, until(life->killed ? 0 : life->kill_at_ns));
        if (count == 0) end_everything(life);
        if (count <= 0) continue;
        if (ready[1].revents) reports = take_report(life);
        for (int i = 2; i < 4; i++) {
            struct stream *stream = i == 2 ? &life->out : &life->err;
            if (ready[i].revents && !logfile_take(&life->log, stream)) {
                logfile_flush(&life->log, stream);
                close(stream->fd);
                stream->fd = -1;
            }
        }
        if (ready[0].revents) take_signals(life);
    }
    close(life->at.report);
    drain(life, &life->out);
    drain(life, &life->err);
}

/* One start to its end; the result is in life->status. */
static void run_once(struct life *life)
{
    const char *step;
    bool stopping = life->stopping;
    life->executed = life->failed = life->program_ended = life->killed = life->reaped = false;
    life->kill_at_ns = 0;
    life->status.init_pid = life->status.pid = 0;
    life->status.reason[0] = 0;
    if (stopping) return;
    if (!start_bwrap(life->spec, life->spec_fd, life->gate, life->foreground, &life->at, &step)) {
        start_failed(life, step, errno);
        return;
    }
    life->out = (struct stream){.name = "stdout", .fd = life->at.out};
    life->err = (struct stream){.name = "stderr", .fd = life->at.err};
    run_until_ended(life);
    if (!life->executed && !life->failed) {
        life->failed = !life->stopping;
        if (life->failed) take_complaint(life);
        if (life->failed && !life->status.reason[0])
            snprintf(life->status.reason, REASON_SIZE, "bubblewrap ended with code %d",
                     WEXITSTATUS(life->bwrap_status));
    }
    if (!life->program_ended) life->status.exit_code = 128 + SIGKILL;
    life->status.finished_ns = now_ns();
    life->status.pid = life->status.init_pid = 0;
}

/* Another program (Docker, say) unmounted something while a distribution's bubblewrap, or ours on a
 * kernel before 5.12, went through the host's mounts to make them read-only: nothing is wrong, and
 * the next attempt succeeds. */
static bool lost_a_race(const struct life *life)
{
    return life->failed && !life->executed &&
           strstr(life->status.reason, "Unable to apply mount flags") != NULL;
}

static void run_with_patience(struct life *life)
{
    for (int attempt = 0;; attempt++) {
        long size = life->log.size;
        run_once(life);
        if (!lost_a_race(life) || attempt == RACES_MAX || life->foreground) return;
        if (ftruncate(life->log.fd, size) == 0) life->log.size = size; /* not the program's words */
        nanosleep(&(struct timespec){.tv_nsec = (attempt + 1) * RACE_PAUSE_NS}, NULL);
    }
}

static bool wants_restart(const struct life *life, long in_a_row)
{
    const struct spec *spec = life->spec;
    if (life->stopping || life->failed || life->foreground || spec->restart == RESTART_NO)
        return false;
    if (spec->restart == RESTART_ON_FAILURE && life->status.exit_code == 0) return false;
    return spec->max_retries < 0 || in_a_row < spec->max_retries;
}

static void back_off(struct life *life, long delay_ms)
{
    int64_t end = clock_ns() + delay_ms * 1000000;
    life->status.state = "restarting";
    status_write(&life->status);
    life->executed = false;
    while (!life->stopping && clock_ns() < end) {
        struct pollfd ready = {.fd = life->signals, .events = POLLIN};
        struct signalfd_siginfo info;
        if (poll(&ready, 1, until(end)) <= 0) continue;
        while (read(life->signals, &info, sizeof info) == (ssize_t)sizeof info)
            if (info.ssi_signo != SIGCHLD) life->stopping = true;
    }
}

/* What the agent waits for goes by the shim, bubblewrap and init, which must not wait until a
 * program that computes has used up its slice: since Linux 6.12 whoever asks for a shorter one
 * comes first when it wakes. They run for microseconds at a time. Older kernels ignore it. */
void take_short_turns(long slice_ns)
{
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
    } wanted = {.size = sizeof wanted};
    if (syscall(SYS_sched_getattr, 0, &wanted, sizeof wanted, 0) != 0) return;
    if (wanted.policy != SCHED_OTHER && wanted.policy != SCHED_BATCH)
        return; /* somebody's choice */
    wanted.runtime = (uint64_t)slice_ns;
    syscall(SYS_sched_setattr, 0, &wanted, 0);
}

int supervise(int directory, const struct spec *spec, int spec_fd, bool foreground, int announce_fd,
              int gate)
{
    static struct life life;
    life = (struct life){.spec = spec,
                         .directory = directory,
                         .spec_fd = spec_fd,
                         .announce = announce_fd,
                         .gate = gate,
                         .foreground = foreground};
    life.status = (struct status){.directory = directory, .exit_code = -1};
    sigset_t taken;
    sigemptyset(&taken);
    sigaddset(&taken, SIGTERM), sigaddset(&taken, SIGHUP), sigaddset(&taken, SIGCHLD);
    sigprocmask(SIG_BLOCK, &taken, NULL);
    signal(SIGPIPE, SIG_IGN), signal(SIGINT, SIG_IGN), signal(SIGQUIT, SIG_IGN);
    life.signals = signalfd(-1, &taken, SFD_CLOEXEC | SFD_NONBLOCK);
    if (!logfile_open(&life.log, directory, spec->log_bytes))
        snprintf(life.status.reason, REASON_SIZE, "log: %s", strerror(errno));

    long in_a_row = 0, delay_ms = spec->delay_ms;
    for (;;) {
        int64_t began = clock_ns();
        run_with_patience(&life);
        if (clock_ns() - began > HEALTHY_AFTER_MS * INT64_C(1000000))
            in_a_row = 0, delay_ms = spec->delay_ms;
        if (!wants_restart(&life, in_a_row)) break;
        back_off(&life, delay_ms);
        if (life.stopping) break;
        in_a_row++, life.status.restarts++;
        delay_ms = delay_ms * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : delay_ms * 2;
    }
    if (life.given_up) return 0;
    life.status.state = life.failed ? "failed" : "exited";
    if (life.failed) life.status.exit_code = -1;
    status_write(&life.status);
    announce(&life, "failed");
    if (foreground && life.failed) dprintf(2, "cse: %s\n", life.status.reason);
    return life.failed ? 127 : life.status.exit_code;
}
