/* The machine's own limit: messages of fixed sizes over TCP, server and client in C around epoll.

   Both sides read what there is and answer all of it with one write. No message is looked into.
   Loaded as a library by epoll.py, one side in each process. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_FD 1024
#define MAX_IN_FLIGHT 4096
#define BUFFER_BYTES (1 << 18)

static char incoming[BUFFER_BYTES];
static char outgoing[BUFFER_BYTES];

static double now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec * 1e-9;
}

static void send_at_once(int fd) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

/* Write it all, waiting for room where there is none. 0 when the peer is gone. */
static int write_all(int fd, size_t bytes) {
    size_t at = 0;
    while (at < bytes) {
        ssize_t count = send(fd, outgoing + at, bytes - at, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (count > 0) {
            at += count;
        } else if (errno == EAGAIN) {
            struct pollfd room = {fd, POLLOUT, 0};
            poll(&room, 1, -1);
        } else if (errno != EINTR) {
            return 0;
        }
    }
    return 1;
}

/* Serve on listening sockets, each with sizes of its own, until the process ends. -1 when it cannot. */
int serve(const int *listeners, const long *request_bytes, const long *reply_bytes, int count) {
    static long request_of[MAX_FD], reply_of[MAX_FD], pending[MAX_FD];
    struct epoll_event event, ready[64];
    int epoll = epoll_create1(0);
    if (epoll < 0) return -1;
    for (int number = 0; number < count; number++) {
        event.events = EPOLLIN;
        event.data.u64 = (1ull << 32) | (unsigned)number;
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, listeners[number], &event) < 0) return -1;
    }
    for (;;) {
        int found = epoll_wait(epoll, ready, 64, -1);
        for (int index = 0; index < found; index++) {
            int number = (int)(ready[index].data.u64 & 0xffffffff);
            if (ready[index].data.u64 >> 32) {
                int fd = accept4(listeners[number], NULL, NULL, SOCK_NONBLOCK);
                if (fd < 0) continue;
                if (fd >= MAX_FD) {
                    close(fd);
                    continue;
                }
                send_at_once(fd);
                request_of[fd] = request_bytes[number];
                reply_of[fd] = reply_bytes[number];
                pending[fd] = 0;
                event.events = EPOLLIN;
                event.data.u64 = (unsigned)fd;
                epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
                continue;
            }
            ssize_t arrived = recv(number, incoming, sizeof incoming, 0);
            if (arrived <= 0) {
                if (arrived == 0 || (errno != EAGAIN && errno != EINTR)) close(number);
                continue;
            }
            pending[number] += arrived;
            long complete = pending[number] / request_of[number];
            long at_most = (long)sizeof outgoing / reply_of[number];
            pending[number] %= request_of[number];
            while (complete > 0) {
                long batch = complete < at_most ? complete : at_most;
                if (!write_all(number, batch * reply_of[number])) break;
                complete -= batch;
            }
        }
    }
}

/* Keep so many requests in flight for so long. Latencies, in microseconds, go to `latencies_us` until it is full; their
   number to `latencies`. Returns how many replies came, or -1; `elapsed_s` is set. */
long measure(int fd, long request_bytes, long reply_bytes, int in_flight, double seconds, double *latencies_us,
             long max_latencies, long *latencies, double *elapsed_s) {
    static double sent_at[MAX_IN_FLIGHT];
    struct epoll_event event = {.events = EPOLLIN}, ready;
    long replies = 0, sent = in_flight, pending = 0;
    int epoll = epoll_create1(0);
    *latencies = 0;
    if (epoll < 0 || in_flight > MAX_IN_FLIGHT || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0) return -1;
    send_at_once(fd);
    double started = now_s(), deadline = started + seconds, now = started;
    for (int number = 0; number < in_flight; number++) sent_at[number] = started;
    if (!write_all(fd, in_flight * request_bytes)) return -1;
    while (replies < sent) {
        if (epoll_wait(epoll, &ready, 1, -1) < 0 && errno != EINTR) return -1;
        ssize_t arrived = recv(fd, incoming, sizeof incoming, MSG_DONTWAIT);
        if (arrived == 0) return -1;
        if (arrived < 0) {
            if (errno == EAGAIN || errno == EINTR) continue;
            return -1;
        }
        pending += arrived;
        long complete = pending / reply_bytes;
        pending %= reply_bytes;
        now = now_s();
        for (long number = 0; number < complete; number++, replies++) {
            if (*latencies < max_latencies) latencies_us[(*latencies)++] = (now - sent_at[replies % in_flight]) * 1e6;
            sent_at[replies % in_flight] = now;
        }
        if (complete && now < deadline) {
            if (!write_all(fd, complete * request_bytes)) return -1;
            sent += complete;
        }
    }
    *elapsed_s = now_s() - started;
    close(epoll);
    return replies;
}
