/* A cheap MQTT load generator: one thread, epoll, so that the broker is what is measured.
 *
 *   mqtt_load HOST PORT MODE [key=value ...]
 *
 * Modes
 *   publish  connections=50 window=20 qos=1 size=100 seconds=5   acknowledged messages/s and the time to the
 *            acknowledgement; qos=0 counts what was processed by the time every PINGRESP came back; qos=2 whole
 *            exchanges; rate=R (messages/s in all) paces instead of keeping the window full, and prints {"running": n}
 *            when all are connected
 *   fanout   connections=1000 window=20 qos=0 size=100 seconds=5   one publisher, `connections` subscribers; at most
 *            `window` messages are on their way to anybody, so that nothing has to be thrown away; the time is from
 *            the publish to each delivery
 *   connect  connections=50 seconds=5   CONNECT, CONNACK, DISCONNECT, again: connects/s
 *   idle     connections=1000 seconds=5   opens them, prints {"idle": n}, holds them, closes them
 * More keys: version=4|5 user=U password=P topic=PREFIX (then "/<connection>") prefix=CLIENT_ID_PREFIX
 *
 * Prints one line of JSON; exit status 1 when a connection was lost or refused, with the reason on stderr.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { OUT_SIZE = 65536, IN_SIZE = 262144, BUCKETS = 2048 };
enum state { CONNECTING, GREETING, SUBSCRIBING, RUNNING, PINGING, DONE };

struct connection {
    int fd, number, in_flight, want_write;
    enum state state;
    unsigned next_id;
    uint32_t out_used, out_start, rest_used;
    unsigned char *out, *rest;
    double *sent_at;
    unsigned head, tail;
    double due;
};

static const char *host = "127.0.0.1", *mode = "publish", *user = NULL, *password = NULL, *topic = "bench";
static const char *prefix = "load";
static int port = 1883, connections = 50, window = 20, qos = 1, size = 100, version = 4;
static double seconds = 5, rate = 0;
static struct connection *all;
static int epoll_fd, running, finished, failed;
static unsigned long sent, acked, delivered, connects;
static double last_delivery;
static unsigned long histogram[BUCKETS];
static unsigned char shared_in[IN_SIZE], payload[1 << 20];
static double started, stop_at;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void die(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

/* Logarithmic buckets, 64 to a factor of two, from a microsecond on. */
static void note(double latency) {
    double us = latency * 1e6;
    int bucket = 0;
    while (us >= 2) us /= 2, bucket += 64;
    bucket += us > 1 ? (int)((us - 1) * 64) : 0;
    histogram[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
}

static double percentile(double share) {
    unsigned long total = 0, seen = 0;
    for (int i = 0; i < BUCKETS; i++) total += histogram[i];
    for (int i = 0; i < BUCKETS; i++)
        if ((seen += histogram[i]) >= total * share && seen)
            return (1.0 + (i % 64) / 64.0) * (double)(1UL << (i / 64)) / 1000.0;
    return 0;
}

static unsigned char *put_text(unsigned char *at, const char *text) {
    size_t length = strlen(text);
    *at++ = length >> 8;
    *at++ = length;
    memcpy(at, text, length);
    return at + length;
}

static unsigned char *put_packet(unsigned char *at, int first, const unsigned char *body, unsigned length) {
    *at++ = first;
    unsigned left = length;
    do {
        *at++ = (left & 127) | (left > 127 ? 128 : 0);
        left >>= 7;
    } while (left);
    memcpy(at, body, length);
    return at + length;
}

static void watch(struct connection *c, int write) {
    if (c->want_write == write) return;
    c->want_write = write;
    struct epoll_event event = {.events = EPOLLIN | (write ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &event);
}

static void lose(struct connection *c, const char *why) {
    if (c->state != DONE && !failed++) fprintf(stderr, "connection %d: %s\n", c->number, why);
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
    if (c->state != DONE) finished++;
    c->state = DONE;
}

static int is_fanout(void) { return !strcmp(mode, "fanout"); }

static int is_subscriber(struct connection *c) { return is_fanout() && c->number > 0; }

static void flush(struct connection *c) {
    while (c->out_start < c->out_used) {
        ssize_t n = send(c->fd, c->out + c->out_start, c->out_used - c->out_start, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno != EAGAIN) { lose(c, strerror(errno)); return; }
            watch(c, 1);
            return;
        }
        c->out_start += n;
    }
    c->out_used = c->out_start = 0;
    watch(c, !qos && c->state == RUNNING && started && now() < stop_at && !is_fanout()); /* more, when there is room */
}

static void add(struct connection *c, const unsigned char *data, unsigned length) {
    if (c->out_start && c->out_used + length > OUT_SIZE) {
        memmove(c->out, c->out + c->out_start, c->out_used - c->out_start);
        c->out_used -= c->out_start;
        c->out_start = 0;
    }
    if (c->out_used + length > OUT_SIZE) return; /* acknowledgements only: the window bounds them */
    memcpy(c->out + c->out_used, data, length);
    c->out_used += length;
}

static void open_connection(struct connection *c) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, host, &address.sin_addr);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) die("socket");
    int one = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    int buffer = 65536; /* what lies in our kernel's buffer is not on its way yet */
    if (!qos) setsockopt(c->fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
    /* from fifty addresses, so that ports which wait for their end don't run out */
    static unsigned turn;
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000002 + turn++ % 50)};
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    if (!strncmp(host, "127.", 4) && bind(c->fd, (struct sockaddr *)&from, sizeof from) < 0) die("bind");
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address) < 0 && errno != EINPROGRESS) die("connect");
    c->state = CONNECTING;
    c->out_used = c->out_start = c->rest_used = 0;
    c->want_write = 1;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &event);
}

static void greet(struct connection *c) {
    unsigned char body[1024], frame[1100], *at = body;
    char id[128];
    snprintf(id, sizeof id, "%s-%d-%d", prefix, (int)getpid(), c->number);
    at = put_text(at, "MQTT");
    *at++ = version;
    *at++ = 2 | (user ? 0x80 : 0) | (password ? 0x40 : 0);
    *at++ = 0;
    *at++ = 0;
    if (version == 5) *at++ = 0;
    at = put_text(at, id);
    if (user) at = put_text(at, user);
    if (password) at = put_text(at, password);
    unsigned char *end = put_packet(frame, 0x10, body, at - body);
    add(c, frame, end - frame);
    c->state = GREETING;
    flush(c);
}

static int publish_one(struct connection *c) {
    static unsigned char body[(1 << 20) + 1024], frame[(1 << 20) + 1100];
    char name[256];
    if (is_fanout()) snprintf(name, sizeof name, "%s/fan", topic);
    else snprintf(name, sizeof name, "%s/%d", topic, c->number);
    unsigned char *at = put_text(body, name);
    if (qos) {
        c->next_id = c->next_id % 65535 + 1;
        *at++ = c->next_id >> 8;
        *at++ = c->next_id;
    }
    if (version == 5) *at++ = 0;
    memcpy(at, payload, size);
    if (is_fanout() && size >= (int)sizeof(double)) {
        double t = now();
        memcpy(at, &t, sizeof t);
    }
    unsigned char *end = put_packet(frame, 0x30 | qos << 1, body, at + size - body);
    unsigned length = end - frame;
    if (c->out_used + length > OUT_SIZE) return 0;
    add(c, frame, length);
    sent++;
    if (qos) {
        c->sent_at[c->head++ % window] = now();
        c->in_flight++;
    }
    return 1;
}

static void fill(struct connection *c) {
    if (!started || c->state != RUNNING || is_subscriber(c) || !strcmp(mode, "idle")) return;
    double t = now();
    if (t >= stop_at) {
        if (c->in_flight == 0 && c->state == RUNNING && c->out_used < OUT_SIZE - 2) {
            add(c, (const unsigned char *)"\xc0\x00", 2);
            c->state = PINGING;
            flush(c);
        }
        return;
    }
    if (rate > 0) {
        double each = (is_fanout() ? 1 : connections) / rate;
        if (c->due == 0) c->due = t + each * (c->number / (double)connections);
        while (c->due <= t && c->in_flight < window && publish_one(c)) c->due += each;
    } else if (is_fanout()) {
        unsigned long subscribers = connections - 1;
        while (sent * subscribers < delivered + window * subscribers && c->in_flight < window && publish_one(c)) {}
    } else if (qos) {
        while (c->in_flight < window && publish_one(c)) {}
    } else {
        for (int i = 0; i < 200 && c->out_used < OUT_SIZE / 2 && publish_one(c); i++) {}
    }
    flush(c);
}

static void start_all(void) {
    started = now();
    stop_at = started + seconds;
    if (rate > 0) {
        printf("{\"running\": %d}\n", connections);
        fflush(stdout);
    }
    for (int i = 0; i < connections; i++)
        if (all[i].state == RUNNING) fill(&all[i]);
}

static void ready(struct connection *c) {
    c->state = RUNNING;
    if (++running == connections) {
        if (!strcmp(mode, "idle")) {
            printf("{\"idle\": %d}\n", connections);
            fflush(stdout);
            stop_at = now() + seconds;
        } else
            start_all();
    }
}

static void acknowledged(struct connection *c) {
    double t = c->sent_at[c->tail++ % window];
    if (!is_fanout()) note(now() - t);
    c->in_flight--;
    acked++;
}

static void handle(struct connection *c, unsigned char first, unsigned char *body, unsigned length) {
    unsigned char answer[4];
    switch (first >> 4) {
    case 2:
        if (length < 2 || body[1]) { lose(c, "CONNACK refuses"); return; }
        if (!strcmp(mode, "connect")) {
            connects++;
            (void)!send(c->fd, "\xe0\x00", 2, MSG_NOSIGNAL);
            close(c->fd);
            if (now() < stop_at) open_connection(c);
            else c->state = DONE, finished++;
        } else if (is_subscriber(c)) {
            unsigned char packet[512], frame[600], *at = packet;
            char name[256];
            snprintf(name, sizeof name, "%s/fan", topic);
            *at++ = 0;
            *at++ = 1;
            if (version == 5) *at++ = 0;
            at = put_text(at, name);
            *at++ = qos;
            unsigned char *end = put_packet(frame, 0x82, packet, at - packet);
            add(c, frame, end - frame);
            c->state = SUBSCRIBING;
            flush(c);
        } else
            ready(c);
        return;
    case 9: ready(c); return;
    case 3:
        delivered++;
        last_delivery = now();
        if (size >= (int)sizeof(double)) {
            unsigned skip = 2 + (body[0] << 8 | body[1]) + (first & 6 ? 2 : 0) + (version == 5 ? 1 : 0);
            double t;
            if (skip + sizeof t <= length) {
                memcpy(&t, body + skip, sizeof t);
                note(last_delivery - t);
            }
        }
        if (first & 6) {
            unsigned skip = 2 + (body[0] << 8 | body[1]);
            memcpy(answer, "\x40\x02", 2);
            if (first & 4) answer[0] = 0x50;
            memcpy(answer + 2, body + skip, 2);
            add(c, answer, 4);
        }
        return;
    case 4: acknowledged(c); return;
    case 5:
        memcpy(answer, "\x62\x02", 2);
        memcpy(answer + 2, body, 2);
        add(c, answer, 4);
        return;
    case 6:
        memcpy(answer, "\x70\x02", 2);
        memcpy(answer + 2, body, 2);
        add(c, answer, 4);
        return;
    case 7: acknowledged(c); return;
    case 13:
        if (c->state == PINGING) { c->state = DONE; finished++; }
        return;
    default: lose(c, "unexpected packet");
    }
}

static void take(struct connection *c) {
    for (;;) {
        if (c->rest_used) memcpy(shared_in, c->rest, c->rest_used);
        ssize_t n = recv(c->fd, shared_in + c->rest_used, IN_SIZE - c->rest_used, 0);
        if (n <= 0) {
            if (n < 0 && errno == EAGAIN) return;
            lose(c, n ? strerror(errno) : "closed by the broker");
            return;
        }
        unsigned used = c->rest_used + n, at = 0;
        int whole = used < IN_SIZE;
        c->rest_used = 0;
        while (used - at >= 2) {
            unsigned length = 0, shift = 0, here = at + 1;
            int complete = 0;
            while (here < used) {
                length |= (shared_in[here] & 127) << shift;
                shift += 7;
                if (!(shared_in[here++] & 128)) { complete = 1; break; }
            }
            if (!complete || used - here < length) break;
            int fd = c->fd;
            handle(c, shared_in[at], shared_in + here, length);
            if (c->fd != fd || c->state == DONE || c->state == CONNECTING) return;
            at = here + length;
        }
        if (at < used) {
            if (!c->rest) c->rest = malloc(IN_SIZE);
            memcpy(c->rest, shared_in + at, used - at);
            c->rest_used = used - at;
        }
        if (whole) break;
    }
    if (c->state == RUNNING && (qos || rate > 0) && !is_subscriber(c)) fill(c);
    if (c->fd >= 0 && c->out_used) flush(c);
}

static void option(const char *text) {
    const char *value = strchr(text, '=');
    if (!value) { fprintf(stderr, "not key=value: %s\n", text); exit(2); }
    size_t length = value++ - text;
    if (!strncmp(text, "connections", length)) connections = atoi(value);
    else if (!strncmp(text, "window", length)) window = atoi(value);
    else if (!strncmp(text, "qos", length)) qos = atoi(value);
    else if (!strncmp(text, "size", length)) size = atoi(value);
    else if (!strncmp(text, "seconds", length)) seconds = atof(value);
    else if (!strncmp(text, "rate", length)) rate = atof(value);
    else if (!strncmp(text, "version", length)) version = atoi(value);
    else if (!strncmp(text, "user", length)) user = value;
    else if (!strncmp(text, "password", length)) password = value;
    else if (!strncmp(text, "topic", length)) topic = value;
    else if (!strncmp(text, "prefix", length)) prefix = value;
    else { fprintf(stderr, "unknown key: %s\n", text); exit(2); }
}

int main(int argc, char **argv) {
    if (argc < 4) { fprintf(stderr, "usage: mqtt_load HOST PORT publish|fanout|connect|idle [key=value ...]\n"); return 2; }
    host = argv[1];
    port = atoi(argv[2]);
    mode = argv[3];
    for (int i = 4; i < argc; i++) option(argv[i]);
    if (is_fanout()) connections++; /* the publisher */
    if (size > (int)sizeof payload || size > 1 << 20) { fprintf(stderr, "size too large\n"); return 2; }
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    memset(payload, 'x', sizeof payload);
    epoll_fd = epoll_create1(0);
    all = calloc(connections, sizeof *all);
    double begun = now();
    stop_at = begun + (!strcmp(mode, "connect") ? seconds : 1e9);
    int opened = 0;
    struct epoll_event events[512];
    while (finished < connections) {
        /* open in portions, so that the listen queue isn't what is measured */
        while (opened < connections && opened - running - finished < (strcmp(mode, "connect") ? 200 : connections)) {
            struct connection *c = &all[opened];
            c->number = opened++;
            c->out = malloc(strcmp(mode, "idle") ? OUT_SIZE : 1200);
            c->sent_at = calloc(window, sizeof *c->sent_at);
            open_connection(c);
        }
        int count = epoll_wait(epoll_fd, events, 512, rate > 0 ? 1 : 100);
        for (int i = 0; i < count; i++) {
            struct connection *c = events[i].data.ptr;
            if (c->fd < 0) continue;
            if (c->state == CONNECTING && events[i].events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) {
                int error = 0;
                socklen_t length = sizeof error;
                getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &length);
                if (error) { lose(c, strerror(error)); continue; }
                greet(c);
                continue;
            }
            if (events[i].events & EPOLLOUT && c->state != DONE) {
                flush(c);
                if (c->state == RUNNING) fill(c);
            }
            if (c->fd >= 0 && events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP)) take(c);
        }
        double t = now();
        if (started && strcmp(mode, "idle")) {
            if (is_fanout() && all[0].state == RUNNING) fill(&all[0]);
            if (rate > 0 || t >= stop_at)
                for (int i = 0; i < connections; i++)
                    if (all[i].state == RUNNING && all[i].fd >= 0) fill(&all[i]);
            if (is_fanout() && t >= stop_at && all[0].state == DONE)
                if (delivered >= sent * (connections - 1) || t - last_delivery > 2) break;
        }
        if (!strcmp(mode, "idle") && running == connections && t >= stop_at) break;
        if (failed && !started && strcmp(mode, "connect")) break;
        if (!started && t > begun + 60 && stop_at > t + 1e6) { fprintf(stderr, "only %d of %d connected within 60 s\n", running, connections); failed++; break; }
        if (t > stop_at + 30) { fprintf(stderr, "gave up waiting\n"); failed++; break; }
    }
    double took = now() - (started ? started : begun);
    if (!strcmp(mode, "connect"))
        printf("{\"connects\": %lu, \"per_second\": %.0f}\n", connects, connects / took);
    else if (is_fanout())
        printf("{\"published\": %lu, \"lost\": %ld, \"per_second\": %.0f, \"p50_ms\": %.3f, \"p99_ms\": %.3f}\n", sent,
               (long)(sent * (connections - 1)) - (long)delivered, delivered / (last_delivery - started),
               percentile(0.5), percentile(0.99));
    else if (strcmp(mode, "idle"))
        printf("{\"messages\": %lu, \"per_second\": %.0f, \"p50_ms\": %.3f, \"p99_ms\": %.3f}\n", qos ? acked : sent,
               (qos ? acked : sent) / took, percentile(0.5), percentile(0.99));
    return failed ? 1 : 0;
}
