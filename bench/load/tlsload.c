/* tlsload: a load generator for TLS filters, bounded in count and time. One thread, one epoll loop, OpenSSL.
 *
 *   raw      connect, send a ready-made ClientHello, read exactly --expect octets and the end of the stream.
 *            No TLS is spoken: neither end spends time on it, so the proxy between them is what gets measured.
 *            With a large --expect this is the bulk download (`bulk` is the same mode).
 *   refused  connect, send the ClientHello, wait for the refusal. Time runs from the ClientHello to the refusal.
 *   idle     open --count connections as in raw, then hold them for --hold seconds (or until SIGTERM); a line
 *            {"held": N} tells when all are up.
 *   tls      full handshake, never resumed; one GET; a complete response with --status. Verified against --ca if given.
 *   page     the same, for a block page: --status 451 unless another is asked for.
 *
 * Time of a connection runs from connect() to the last octet, end of stream included, except for `refused`.
 * Connections that took longer than --threshold-ms are counted. SIGTERM and SIGINT end the run early, with figures.
 * Output is one JSON object on one line.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_CONCURRENCY = 16384, MAX_COUNT = 10000000, MAX_SECONDS = 600, BATCH = 256, IDLE_RAMP = 64 };
enum mode { RAW, REFUSED, IDLE, TLS };
enum state { FREE, CONNECTING, HANDSHAKE, WAITING, HELD };

struct connection {
    int fd;
    enum state state;
    SSL *ssl;
    double started;     /* connect() */
    double asked;       /* ClientHello about to be written */
    long received;      /* octets of the stream (raw) or of the body (tls) */
    long body_length;   /* Content-Length, or -1: until the end */
    int header_done;
    int header_length;
    char header[8192];
};

/* What went well, and why the rest did not. */
struct tally {
    long started, ok, bytes, held;
    long connect_failed, reset, short_answer, wrong_answer, handshake_failed;
    long by_alert, by_reset, by_end; /* how refusals came */
    int alert;                       /* description of the last alert seen, or -1 */
};

static enum mode mode = RAW;
static struct sockaddr_in target = {.sin_family = AF_INET};
static char hello[20480];
static size_t hello_length;
static long expected = 1200, count = 1000;
static int concurrency = 1, status_expected;
static double seconds = 10, hold = 10, threshold_ms = 20;
static char request[1024];
static int request_length;
static const char *server_name = "www.example.org";
static SSL_CTX *context;

static struct tally tally = {.alert = -1};
static struct connection *connections;
static double *latencies;
static long latency_count, latency_room;
static int poller, live;
static volatile sig_atomic_t stopped;
static char buffer[1 << 18];
static char first_failure[200]; /* of a handshake, in OpenSSL's words */

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void watch(int operation, struct connection *c, unsigned events) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    epoll_ctl(poller, operation, c->fd, &event);
}

static void release(struct connection *c) {
    if (c->ssl) {
        SSL_set_quiet_shutdown(c->ssl, 1);
        SSL_free(c->ssl);
        c->ssl = NULL;
    }
    close(c->fd);
    c->fd = -1;
    c->state = FREE;
    live--;
}

static void succeed(struct connection *c, double since) {
    tally.ok++;
    if (latency_count == latency_room) {
        latency_room = latency_room ? 2 * latency_room : 65536;
        latencies = realloc(latencies, (size_t)latency_room * sizeof *latencies);
        if (!latencies) abort();
    }
    latencies[latency_count++] = now() - since;
    release(c);
}

static void fail(struct connection *c, long *reason) {
    ++*reason;
    release(c);
}

static void start(struct connection *c) {
    int one = 1;
    c->ssl = NULL;
    c->received = 0;
    c->body_length = -1;
    c->header_done = c->header_length = 0;
    tally.started++;
    live++;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) {
        perror("tlsload: socket");
        exit(3);
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    c->state = CONNECTING;
    c->started = now();
    if (connect(c->fd, (struct sockaddr *)&target, sizeof target) < 0 && errno != EINPROGRESS) {
        fail(c, &tally.connect_failed);
        return;
    }
    if (mode == TLS) {
        c->ssl = SSL_new(context);
        SSL_set_fd(c->ssl, c->fd);
        SSL_set_tlsext_host_name(c->ssl, server_name);
        SSL_set1_host(c->ssl, server_name);
        SSL_set_connect_state(c->ssl);
    }
    watch(EPOLL_CTL_ADD, c, EPOLLOUT);
}

/* Whether connect() went well; what didn't is counted and released. */
static int connected(struct connection *c) {
    int problem = 0;
    socklen_t size = sizeof problem;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &problem, &size);
    if (problem) fail(c, &tally.connect_failed);
    return !problem;
}

/* --- a ClientHello without TLS: raw, refused, idle --- */

static void send_hello(struct connection *c) {
    c->asked = now(); /* before sending: the answer may be here when send() returns */
    if (send(c->fd, hello, hello_length, MSG_NOSIGNAL) != (ssize_t)hello_length) {
        fail(c, &tally.reset);
        return;
    }
    c->state = WAITING;
    watch(EPOLL_CTL_MOD, c, EPOLLIN);
}

static void read_refusal(struct connection *c) {
    unsigned char answer[64];
    ssize_t got = recv(c->fd, answer, sizeof answer, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got >= 7 && answer[0] == 21) {
        tally.by_alert++;
        tally.alert = answer[6];
    } else if (got > 0) {
        fail(c, &tally.wrong_answer);
        return;
    } else if (got < 0) {
        tally.by_reset++;
    } else {
        tally.by_end++;
    }
    succeed(c, c->asked);
}

static void read_raw(struct connection *c) {
    for (;;) {
        /* MSG_TRUNC drops the octets in the kernel: the client's copy isn't what is measured. */
        ssize_t got = recv(c->fd, buffer, 1 << 24, MSG_TRUNC);
        if (got < 0 && errno == EAGAIN) return;
        if (got < 0) {
            fail(c, &tally.reset);
            return;
        }
        if (got == 0) {
            if (c->received != expected) fail(c, c->received < expected ? &tally.short_answer : &tally.wrong_answer);
            else succeed(c, c->started);
            return;
        }
        tally.bytes += got;
        c->received += got;
        if (mode == IDLE && c->received >= expected) {
            c->state = HELD;
            tally.held++;
            return;
        }
    }
}

static void step_raw(struct connection *c) {
    if (c->state == CONNECTING) {
        if (connected(c)) send_hello(c);
    } else if (c->state == HELD) {
        tally.held--;
        fail(c, &tally.short_answer);
    } else if (mode == REFUSED) {
        read_refusal(c);
    } else {
        read_raw(c);
    }
}

/* --- TLS: tls, page --- */

/* Takes octets of the response. 1: it is complete; 0: more to come; -1: it isn't what was asked for. */
static int take_response(struct connection *c, const char *data, int length) {
    int skip = 0;
    if (!c->header_done) {
        int before = c->header_length, room = (int)sizeof c->header - 1 - before, taken = length < room ? length : room;
        memcpy(c->header + before, data, (size_t)taken);
        c->header_length += taken;
        c->header[c->header_length] = 0;
        char *end = strstr(c->header, "\r\n\r\n");
        if (!end) return taken < length ? -1 : 0;
        *end = 0;
        skip = (int)(end - c->header) + 4 - before;
        char *stated = strcasestr(c->header, "\r\ncontent-length:");
        c->header_done = 1;
        c->body_length = stated ? atol(stated + 17) : -1;
        if (c->header_length < 12 || atoi(c->header + 9) != status_expected) return -1;
    }
    c->received += length - skip;
    return c->body_length >= 0 && c->received >= c->body_length;
}

/* What an unfinished OpenSSL call waits for is watched; anything else ends the connection. */
static void await_or_end(struct connection *c, int returned, long *reason) {
    int error = SSL_get_error(c->ssl, returned);
    const char *words = ERR_reason_error_string(ERR_peek_error());
    long verified = SSL_get_verify_result(c->ssl);
    if (verified != X509_V_OK) words = X509_verify_cert_error_string(verified);
    ERR_clear_error();
    if (error == SSL_ERROR_WANT_READ) {
        watch(EPOLL_CTL_MOD, c, EPOLLIN);
    } else if (error == SSL_ERROR_WANT_WRITE) {
        watch(EPOLL_CTL_MOD, c, EPOLLOUT);
    } else if (error == SSL_ERROR_ZERO_RETURN && c->header_done && c->body_length < 0 && c->received > 0) {
        succeed(c, c->started);
    } else {
        if (!*first_failure) snprintf(first_failure, sizeof first_failure, "%s", words ? words : "connection closed");
        fail(c, reason);
    }
}

static void step_tls(struct connection *c) {
    if (c->state == CONNECTING) {
        if (!connected(c)) return;
        c->state = HANDSHAKE;
    }
    if (c->state == HANDSHAKE) {
        int done = SSL_do_handshake(c->ssl);
        if (done != 1) {
            await_or_end(c, done, &tally.handshake_failed);
            return;
        }
        int written = SSL_write(c->ssl, request, request_length);
        if (written <= 0) {
            fail(c, &tally.reset);
            return;
        }
        c->state = WAITING;
    }
    for (;;) {
        int got = SSL_read(c->ssl, buffer, sizeof buffer);
        if (got <= 0) {
            await_or_end(c, got, &tally.short_answer);
            return;
        }
        tally.bytes += got;
        int complete = take_response(c, buffer, got);
        if (complete > 0) succeed(c, c->started);
        else if (complete < 0) fail(c, &tally.wrong_answer);
        if (complete) return;
    }
}

/* --- the run --- */

static long errors(void) {
    return tally.connect_failed + tally.reset + tally.short_answer + tally.wrong_answer + tally.handshake_failed;
}

static void run(void) {
    struct epoll_event events[BATCH];
    double end = now() + seconds;
    int announced = 0, ramp = mode == IDLE ? IDLE_RAMP : concurrency, used = 0;
    for (; used < ramp && used < concurrency && tally.started < count; used++) start(&connections[used]);
    while (!stopped && now() < end) {
        int ready = epoll_wait(poller, events, BATCH, 50);
        for (int i = 0; i < ready; i++) {
            /* A slot that is used again here has a new descriptor, which can't be in this batch: no stale events. */
            struct connection *c = events[i].data.ptr;
            enum state before = c->state;
            if (mode == TLS) step_tls(c);
            else step_raw(c);
            int settled = before != HELD && (c->state == HELD || c->state == FREE);
            if (mode == IDLE) {
                if (settled && used < concurrency) start(&connections[used++]);
            } else if (c->state == FREE && tally.started < count && !stopped && now() < end) {
                start(c);
            }
        }
        if (mode == IDLE && !announced && tally.held + errors() >= count) {
            announced = 1;
            printf("{\"held\": %ld}\n", tally.held);
            fflush(stdout);
            if (now() + hold < end) end = now() + hold;
        }
        if (!live && tally.started >= count) break;
    }
}

static int ascending(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return a < b ? -1 : a > b;
}

static double percentile(double share) {
    if (!latency_count) return 0;
    long index = (long)((double)latency_count * share);
    return latencies[index < latency_count ? index : latency_count - 1] * 1e3;
}

static long over_threshold(void) {
    long found = 0;
    while (found < latency_count && latencies[latency_count - 1 - found] * 1e3 > threshold_ms) found++;
    return found;
}

static void report(double elapsed) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double cpu = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                 (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    double oldest = 0; /* of those still unanswered: a connection that hangs must not hide in the percentiles */
    long unfinished = 0;
    for (int i = 0; i < concurrency; i++) {
        if (connections[i].state == FREE || connections[i].state == HELD) continue;
        unfinished++;
        double age = now() - connections[i].started;
        if (age > oldest) oldest = age;
    }
    qsort(latencies, (size_t)latency_count, sizeof *latencies, ascending);
    printf("{\"ok\": %ld, \"err\": %ld, \"unfinished\": %ld, \"oldest_ms\": %.3f, \"seconds\": %.4f, \"rate\": %.2f, "
           "\"p50_ms\": %.4f, \"p99_ms\": %.4f, \"max_ms\": %.4f, \"over_threshold\": %ld, \"bytes\": %ld, "
           "\"mb_per_s\": %.2f, \"client_cpu_s\": %.3f, "
           "\"errors\": {\"connect\": %ld, \"reset\": %ld, \"short\": %ld, \"wrong\": %ld, \"handshake\": %ld}, "
           "\"refusals\": {\"alert\": %ld, \"reset\": %ld, \"end\": %ld, \"description\": %d}, \"held\": %ld, "
           "\"first_failure\": \"%s\"}\n",
           tally.ok, errors(), unfinished, oldest * 1e3, elapsed, (double)tally.ok / elapsed, percentile(0.5),
           percentile(0.99), percentile(1), over_threshold(), tally.bytes, (double)tally.bytes / elapsed / 1e6, cpu,
           tally.connect_failed, tally.reset, tally.short_answer, tally.wrong_answer, tally.handshake_failed, tally.by_alert, tally.by_reset,
           tally.by_end, tally.alert, tally.held, first_failure);
}

static void stop(int number) {
    (void)number;
    stopped = 1;
}

static int read_hello(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) return 0;
    hello_length = fread(hello, 1, sizeof hello, file);
    fclose(file);
    return hello_length > 5 && hello_length < sizeof hello;
}

static void prepare_tls(const char *authorities, const char *path) {
    context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    if (authorities) {
        if (SSL_CTX_load_verify_locations(context, authorities, NULL) != 1) {
            fprintf(stderr, "tlsload: no certificates in %s\n", authorities);
            exit(2);
        }
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    }
    request_length = snprintf(request, sizeof request,
                              "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: tlsload\r\nAccept: text/html\r\n"
                              "Accept-Language: en\r\nConnection: close\r\n\r\n",
                              path, server_name);
}

static int mode_named(const char *name) {
    if (!strcmp(name, "raw") || !strcmp(name, "bulk")) return RAW;
    if (!strcmp(name, "refused")) return REFUSED;
    if (!strcmp(name, "idle")) return IDLE;
    if (!strcmp(name, "tls")) {
        status_expected = status_expected ? status_expected : 200;
        return TLS;
    }
    if (!strcmp(name, "page")) {
        status_expected = status_expected ? status_expected : 451;
        return TLS;
    }
    fprintf(stderr, "tlsload: no mode \"%s\": raw, bulk, refused, idle, tls, page\n", name);
    exit(2);
}

int main(int argc, char **argv) {
    const char *address = "127.0.0.1", *named = "raw", *hello_path = NULL, *authorities = NULL, *path = "/";
    int port = 443, option;
    static const struct option options[] = {
        {"mode", required_argument, NULL, 'm'},    {"address", required_argument, NULL, 'a'},
        {"port", required_argument, NULL, 'p'},    {"hello", required_argument, NULL, 'h'},
        {"expect", required_argument, NULL, 'e'},  {"name", required_argument, NULL, 'n'},
        {"path", required_argument, NULL, 'P'},    {"ca", required_argument, NULL, 'A'},
        {"status", required_argument, NULL, 'S'},  {"concurrency", required_argument, NULL, 'c'},
        {"count", required_argument, NULL, 'N'},   {"seconds", required_argument, NULL, 's'},
        {"hold", required_argument, NULL, 'H'},    {"threshold-ms", required_argument, NULL, 'T'},
        {NULL, 0, NULL, 0},
    };
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'm': named = optarg; break;
        case 'a': address = optarg; break;
        case 'p': port = atoi(optarg); break;
        case 'h': hello_path = optarg; break;
        case 'e': expected = atol(optarg); break;
        case 'n': server_name = optarg; break;
        case 'P': path = optarg; break;
        case 'A': authorities = optarg; break;
        case 'S': status_expected = atoi(optarg); break;
        case 'c': concurrency = atoi(optarg); break;
        case 'N': count = atol(optarg); break;
        case 's': seconds = atof(optarg); break;
        case 'H': hold = atof(optarg); break;
        case 'T': threshold_ms = atof(optarg); break;
        default: return 2;
        }
    }
    mode = (enum mode)mode_named(named);
    if (mode == IDLE) concurrency = (int)count;
    if (concurrency < 1 || concurrency > MAX_CONCURRENCY || count < 1 || count > MAX_COUNT || seconds <= 0 ||
        seconds > MAX_SECONDS || expected < 1) {
        fprintf(stderr, "tlsload: concurrency up to %d, count up to %d, seconds up to %d\n", MAX_CONCURRENCY, MAX_COUNT,
                MAX_SECONDS);
        return 2;
    }
    if (mode != TLS && (!hello_path || !read_hello(hello_path))) {
        fprintf(stderr, "tlsload: --hello FILE: octets of a ClientHello, up to %zu\n", sizeof hello - 1);
        return 2;
    }
    target.sin_port = htons((uint16_t)port);
    if (inet_pton(AF_INET, address, &target.sin_addr) != 1) {
        fprintf(stderr, "tlsload: --address takes an IPv4 address\n");
        return 2;
    }
    if (mode == TLS) prepare_tls(authorities, path);
    struct rlimit descriptors = {MAX_CONCURRENCY + 64, MAX_CONCURRENCY + 64};
    setrlimit(RLIMIT_NOFILE, &descriptors);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGTERM, stop);
    signal(SIGINT, stop);
    connections = calloc((size_t)concurrency, sizeof *connections);
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (!connections || poller < 0) return 3;
    double began = now();
    run();
    report(now() - began);
    return 0;
}
