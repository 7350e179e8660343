/* rawserver: an origin that costs next to nothing, so that the proxy in front of it is what gets measured.
 *
 * For each connection: reads one whole TLS record (the ClientHello; without reading all of it, closing would reset the
 * connection), answers with a fixed number of octets, then closes, or with --hold leaves the connection open until the
 * client ends it. One thread, one epoll loop. Bounded: it ends after --seconds, and holds MAX_CONNECTIONS at most.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_CONNECTIONS = 65536, RECORD_HEADER = 5, BATCH = 256, BACKLOG = 8192 };

struct connection {
    unsigned char header[RECORD_HEADER];
    int header_length;  /* octets of the header seen */
    long record_left;   /* octets of the record still to come, once the header is known */
    long answer_left;   /* octets still to send; -1: answered and held */
    int asked;          /* the whole record is here */
};

static struct connection connections[MAX_CONNECTIONS];
static char block[1 << 20]; /* what is sent: zeros */
static int poller;
static long answer_length = 1200;
static int hold;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void watch(int operation, int fd, unsigned events) {
    struct epoll_event event = {.events = events, .data.fd = fd};
    epoll_ctl(poller, operation, fd, &event);
}

/* Reads towards the end of the record. 1: it is whole; 0: more to come; -1: the connection is over. */
static int read_record(int fd, struct connection *c) {
    char data[4096];
    for (;;) {
        int in_header = c->header_length < RECORD_HEADER;
        size_t wanted = in_header ? (size_t)(RECORD_HEADER - c->header_length)
                                  : (size_t)(c->record_left < (long)sizeof data ? c->record_left : (long)sizeof data);
        ssize_t got = recv(fd, data, wanted, 0);
        if (got < 0 && errno == EAGAIN) return 0;
        if (got <= 0) return -1;
        if (!in_header) {
            if ((c->record_left -= got) == 0) return 1;
            continue;
        }
        memcpy(c->header + c->header_length, data, (size_t)got);
        if ((c->header_length += (int)got) == RECORD_HEADER) {
            c->record_left = c->header[3] << 8 | c->header[4];
            if (c->record_left == 0) return -1;
        }
    }
}

/* Sends what the socket takes. 1: all is sent; 0: the socket is full; -1: the connection is over. */
static int send_answer(int fd, struct connection *c) {
    while (c->answer_left > 0) {
        size_t size = c->answer_left < (long)sizeof block ? (size_t)c->answer_left : sizeof block;
        ssize_t sent = send(fd, block, size, 0);
        if (sent < 0 && errno == EAGAIN) return 0;
        if (sent < 0) return -1;
        c->answer_left -= sent;
    }
    return 1;
}

static void serve(int fd) {
    struct connection *c = &connections[fd];
    if (!c->asked) {
        int state = read_record(fd, c);
        if (state < 0) close(fd);
        if (state <= 0) return;
        c->asked = 1;
    } else if (c->answer_left < 0) { /* held: whatever happens now is its end */
        close(fd);
        return;
    }
    int state = send_answer(fd, c);
    if (state == 0) {
        watch(EPOLL_CTL_MOD, fd, EPOLLOUT);
    } else if (state > 0 && hold) {
        c->answer_left = -1;
        watch(EPOLL_CTL_MOD, fd, EPOLLIN);
    } else {
        close(fd);
    }
}

static void accept_all(int listener) {
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        if (fd >= MAX_CONNECTIONS) {
            close(fd);
            continue;
        }
        connections[fd] = (struct connection){.answer_left = answer_length};
        watch(EPOLL_CTL_ADD, fd, EPOLLIN);
    }
}

static int listen_on(const char *address, int port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    if (fd < 0 || inet_pton(AF_INET, address, &at.sin_addr) != 1) return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&at, sizeof at) < 0 || listen(fd, BACKLOG) < 0) return -1;
    return fd;
}

int main(int argc, char **argv) {
    const char *address = "127.0.0.1";
    int port = 443, option;
    double seconds = 7200;
    static const struct option options[] = {
        {"address", required_argument, NULL, 'a'}, {"port", required_argument, NULL, 'p'},
        {"bytes", required_argument, NULL, 'b'},   {"seconds", required_argument, NULL, 's'},
        {"hold", no_argument, &hold, 1},           {NULL, 0, NULL, 0},
    };
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 0: break;
        case 'a': address = optarg; break;
        case 'p': port = atoi(optarg); break;
        case 'b': answer_length = atol(optarg); break;
        case 's': seconds = atof(optarg); break;
        default: return 2;
        }
    }
    if (seconds <= 0 || seconds > 7200 || answer_length < 1) return 2;
    struct rlimit descriptors = {MAX_CONNECTIONS, MAX_CONNECTIONS};
    setrlimit(RLIMIT_NOFILE, &descriptors);
    signal(SIGPIPE, SIG_IGN);
    int listener = listen_on(address, port);
    if (listener < 0) {
        perror("rawserver: listen");
        return 3;
    }
    poller = epoll_create1(EPOLL_CLOEXEC);
    watch(EPOLL_CTL_ADD, listener, EPOLLIN);
    struct epoll_event events[BATCH];
    for (double end = now() + seconds; now() < end;) {
        int count = epoll_wait(poller, events, BATCH, 1000);
        for (int i = 0; i < count; i++) {
            /* One event a descriptor and batch, and accepting comes last: a reused number never gets a stale event. */
            if (events[i].data.fd != listener) serve(events[i].data.fd);
        }
        for (int i = 0; i < count; i++)
            if (events[i].data.fd == listener) accept_all(listener);
    }
    return 0;
}
