/* The floor: a bridge between telephones and an AI in C, which does a media worker's work and nothing else.
 *
 * It answers the voice webhook with TwiML, accepts the stream's websocket, opens one to the AI, confirms mu-law, forwards the caller's
 * base64, decodes the AI's deltas, cuts frames, and paces them to the caller with the same lead and the same clock: frame n is due at
 * origin + n * 20 ms - lead. One thread, one epoll, one timerfd over a heap of deadlines. It checks no signature, stores nothing, reports
 * nothing, and finds JSON fields by searching: its cost is that of kernel and protocol, the floor for any gateway. Never expose it to a
 * network.
 *
 *     floor PORT AI_PORT LEAD_MS        prints "ready" on stdout; GET /metrics has the gateway's own histogram names
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum {
    FRAME_BYTES = 160,
    FRAME_BASE64 = 216,
    READ_BYTES = 16384,     /* as in a worker */
    IN_LIMIT = 8 << 20,     /* the longest message */
    OUT_LIMIT = 256 << 10,  /* buffered for a peer that does not read */
    EVENTS = 64,
    MAX_CALLS = 4096,
};
static const int64_t PTIME_NS = 20000000;

enum kind { HTTP, PHONE, AI };

struct buffer {
    uint8_t *data;
    size_t start, end, size;
};

struct call;

struct conn {
    int fd;
    enum kind kind;
    int open; /* the handshake is done */
    int waiting; /* EPOLLOUT is registered */
    struct buffer in, out;
    struct call *call;
};

struct call {
    struct conn *phone, *ai;
    int ready; /* the AI confirmed its formats */
    struct buffer audio;
    uint8_t message[512]; /* header and prefix, then base64 and suffix */
    size_t prefix_bytes;
    int64_t origin_ns, n, floor_ns; /* the talkspurt's clock; no frame is due before floor_ns */
    int64_t due_ns;
    int heap_at; /* -1: not in the heap */
};

static int epoll_fd, timer_fd, listen_fd, port, ai_port;
static int64_t lead_ns;
static struct call *heap[MAX_CALLS];
static int heap_size;
static int64_t armed_ns;

/* -- measurement ---------------------------------------------------------------------------------------------------- */

enum { EDGES = 41 };
struct histogram {
    double edges[EDGES];
    uint64_t counts[EDGES + 1];
    double sum, max;
};
static struct histogram send_seconds, lateness_seconds;
static double underrun_seconds;
static uint64_t dropped_frames;

static void histogram_init(struct histogram *h)
{
    static const double mantissas[] = {1, 1.3, 1.8, 2.4, 3.2, 4.2, 5.6, 7.5};
    double decade = 1e-5;
    for (int i = 0; i < EDGES; i++) {
        h->edges[i] = decade * mantissas[i % 8];
        if (i % 8 == 7)
            decade *= 10;
    }
}

static void observe(struct histogram *h, int64_t ns)
{
    double seconds = ns > 0 ? ns / 1e9 : 0.0;
    int low = 0, high = EDGES;
    while (low < high) {
        int middle = (low + high) / 2;
        if (h->edges[middle] < seconds)
            low = middle + 1;
        else
            high = middle;
    }
    h->counts[low]++;
    h->sum += seconds;
    if (seconds > h->max)
        h->max = seconds;
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* -- bytes ---------------------------------------------------------------------------------------------------------- */

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static uint8_t *room(struct buffer *b, size_t wanted)
{
    if (b->start == b->end)
        b->start = b->end = 0;
    if (b->size - b->end < wanted) {
        memmove(b->data, b->data + b->start, b->end - b->start);
        b->end -= b->start;
        b->start = 0;
        if (b->size - b->end < wanted) {
            b->size = (b->end + wanted) * 2;
            b->data = realloc(b->data, b->size);
            if (b->data == NULL)
                die("realloc");
        }
    }
    return b->data + b->end;
}

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static int8_t values[256];

static size_t base64_encode(uint8_t *to, const uint8_t *from, size_t n)
{
    uint8_t *begin = to;
    for (; n >= 3; n -= 3, from += 3) {
        uint32_t v = from[0] << 16 | from[1] << 8 | from[2];
        *to++ = alphabet[v >> 18];
        *to++ = alphabet[v >> 12 & 63];
        *to++ = alphabet[v >> 6 & 63];
        *to++ = alphabet[v & 63];
    }
    if (n) {
        uint32_t v = from[0] << 16 | (n == 2 ? from[1] << 8 : 0);
        *to++ = alphabet[v >> 18];
        *to++ = alphabet[v >> 12 & 63];
        *to++ = n == 2 ? alphabet[v >> 6 & 63] : '=';
        *to++ = '=';
    }
    return to - begin;
}

/* Returns the number of bytes decoded, -1 for invalid base64. */
static long base64_decode(uint8_t *to, const uint8_t *from, size_t n)
{
    uint8_t *begin = to;
    if (n % 4)
        return -1;
    for (; n >= 4; n -= 4, from += 4) {
        int a = values[from[0]], b = values[from[1]], c = values[from[2]], d = values[from[3]];
        if ((a | b) < 0)
            return -1;
        *to++ = a << 2 | b >> 4;
        if (from[3] == '=' && n == 4) {
            if (from[2] == '=')
                break;
            if (c < 0)
                return -1;
            *to++ = b << 4 | c >> 2;
            break;
        }
        if ((c | d) < 0)
            return -1;
        *to++ = b << 4 | c >> 2;
        *to++ = c << 6 | d;
    }
    return to - begin;
}

static uint32_t rotate(uint32_t v, int by) { return v << by | v >> (32 - by); }

/* RFC 3174, for messages of one or two blocks: a key and the GUID. */
static void sha1(const uint8_t *text, size_t n, uint8_t digest[20])
{
    uint8_t blocks[128] = {0};
    uint32_t h[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
    size_t total = n + 9 <= 64 ? 64 : 128;
    memcpy(blocks, text, n);
    blocks[n] = 0x80;
    blocks[total - 2] = n * 8 >> 8;
    blocks[total - 1] = n * 8;
    for (size_t at = 0; at < total; at += 64) {
        uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
        for (int i = 0; i < 16; i++)
            w[i] = (uint32_t)blocks[at + 4 * i] << 24 | blocks[at + 4 * i + 1] << 16 | blocks[at + 4 * i + 2] << 8 | blocks[at + 4 * i + 3];
        for (int i = 16; i < 80; i++)
            w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
        for (int i = 0; i < 80; i++) {
            uint32_t f = i < 20 ? ((b & c) | (~b & d)) + 0x5A827999
                       : i < 40 ? (b ^ c ^ d) + 0x6ED9EBA1
                       : i < 60 ? ((b & c) | (b & d) | (c & d)) + 0x8F1BBCDC
                                : (b ^ c ^ d) + 0xCA62C1D6;
            uint32_t next = rotate(a, 5) + f + e + w[i];
            e = d, d = c, c = rotate(b, 30), b = a, a = next;
        }
        h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e;
    }
    for (int i = 0; i < 20; i++)
        digest[i] = h[i / 4] >> (24 - 8 * (i % 4));
}

/* -- writing -------------------------------------------------------------------------------------------------------- */

static void end_call(struct call *call);

static void watch(struct conn *c, uint32_t events, int operation)
{
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (epoll_ctl(epoll_fd, operation, c->fd, &event) != 0)
        die("epoll_ctl");
}

/* One non-blocking send; bytes the kernel does not take are buffered, up to OUT_LIMIT. */
static void put(struct conn *c, const uint8_t *data, size_t n)
{
    if (c->fd < 0)
        return;
    if (c->out.start == c->out.end && c->open) {
        ssize_t sent = send(c->fd, data, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent == (ssize_t)n)
            return;
        if (sent > 0)
            data += sent, n -= sent;
    }
    if (c->out.end - c->out.start + n > OUT_LIMIT)
        return; /* its reader sees the end */
    memcpy(room(&c->out, n), data, n);
    c->out.end += n;
    if (!c->waiting) {
        c->waiting = 1;
        watch(c, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
    }
}

static void flush(struct conn *c)
{
    ssize_t sent = send(c->fd, c->out.data + c->out.start, c->out.end - c->out.start, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0)
        c->out.start += sent;
    if (c->out.start == c->out.end) {
        c->waiting = 0;
        watch(c, EPOLLIN, EPOLL_CTL_MOD);
    }
}

static size_t text_header(uint8_t *to, size_t n, uint8_t mask)
{
    to[0] = 0x81;
    if (n < 126) {
        to[1] = mask | n;
        return 2;
    }
    to[1] = mask | 126;
    to[2] = n >> 8;
    to[3] = n;
    return 4;
}

static void xor_mask(uint8_t *data, size_t n, uint32_t key)
{
    uint64_t wide = (uint64_t)key << 32 | key;
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        uint64_t v;
        memcpy(&v, data + i, 8);
        v ^= wide;
        memcpy(data + i, &v, 8);
    }
    for (; i < n; i++)
        data[i] ^= key >> 8 * (i % 4);
}

/* A client's text message in three parts, masked (RFC 6455 5.3). */
static void put_masked(struct conn *c, const char *before, const uint8_t *middle, size_t n, const char *after)
{
    static uint32_t chance = 2463534242;
    uint8_t message[4096];
    size_t before_bytes = strlen(before), after_bytes = strlen(after), total = before_bytes + n + after_bytes;
    if (total > sizeof message - 8)
        return;
    size_t at = text_header(message, total, 0x80);
    chance ^= chance << 13, chance ^= chance >> 17, chance ^= chance << 5;
    memcpy(message + at, &chance, 4);
    at += 4;
    memcpy(message + at, before, before_bytes);
    memcpy(message + at + before_bytes, middle, n);
    memcpy(message + at + before_bytes + n, after, after_bytes);
    xor_mask(message + at, total, chance);
    put(c, message, at + total);
}

/* -- pacing --------------------------------------------------------------------------------------------------------- */

static void heap_set(int i, struct call *call)
{
    heap[i] = call;
    call->heap_at = i;
}

static void heap_sift(int i)
{
    struct call *call = heap[i];
    while (i > 0 && heap[(i - 1) / 2]->due_ns > call->due_ns) {
        heap_set(i, heap[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    for (;;) {
        int child = 2 * i + 1;
        if (child + 1 < heap_size && heap[child + 1]->due_ns < heap[child]->due_ns)
            child++;
        if (child >= heap_size || heap[child]->due_ns >= call->due_ns)
            break;
        heap_set(i, heap[child]);
        i = child;
    }
    heap_set(i, call);
}

static void heap_remove(struct call *call)
{
    int at = call->heap_at;
    if (at < 0)
        return;
    call->heap_at = -1;
    struct call *last = heap[--heap_size];
    if (last != call) {
        heap_set(at, last);
        heap_sift(at);
    }
}

/* Schedule a call that has a whole frame and is not in the heap. */
static void plan(struct call *call, int64_t now)
{
    if (call->heap_at >= 0 || call->audio.end - call->audio.start < FRAME_BYTES || heap_size == MAX_CALLS)
        return;
    if (call->n == 0 || now >= call->origin_ns + call->n * PTIME_NS) {
        call->origin_ns = now;
        call->n = 0;
    }
    call->floor_ns = now;
    call->due_ns = call->origin_ns + call->n * PTIME_NS - lead_ns;
    heap[heap_size] = call;
    call->heap_at = heap_size++;
    heap_sift(call->heap_at);
}

static void send_frame(struct call *call)
{
    uint8_t *at = call->message + call->prefix_bytes;
    at += base64_encode(at, call->audio.data + call->audio.start, FRAME_BYTES);
    memcpy(at, "\"}}", 3);
    call->audio.start += FRAME_BYTES;
    int64_t begun = now_ns();
    put(call->phone, call->message, at + 3 - call->message);
    int64_t sent = now_ns(), due = call->due_ns > call->floor_ns ? call->due_ns : call->floor_ns;
    observe(&send_seconds, sent - begun);
    observe(&lateness_seconds, sent - due);
    if (sent > call->origin_ns + call->n * PTIME_NS && call->n > 0) { /* the lead is used up: the caller heard a gap */
        underrun_seconds += (sent - call->origin_ns - call->n * PTIME_NS) / 1e9;
        call->origin_ns = call->floor_ns = sent;
        call->n = 0;
    }
    call->n++;
}

/* Send all due frames, then arm the timer for the next deadline. */
static void tick(void)
{
    int64_t now = now_ns();
    while (heap_size && heap[0]->due_ns <= now) {
        struct call *call = heap[0];
        send_frame(call);
        if (call->audio.end - call->audio.start < FRAME_BYTES) {
            heap_remove(call);
        } else {
            call->due_ns = call->origin_ns + call->n * PTIME_NS - lead_ns;
            heap_sift(0);
        }
        now = now_ns();
    }
    int64_t wanted = heap_size ? heap[0]->due_ns : 0;
    if (wanted != armed_ns) {
        armed_ns = wanted;
        struct itimerspec spec = {.it_value = {.tv_sec = wanted / 1000000000, .tv_nsec = wanted % 1000000000}};
        timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &spec, NULL);
    }
}

/* -- the AI's side -------------------------------------------------------------------------------------------------- */

static struct conn *new_conn(int fd, enum kind kind)
{
    struct conn *c = calloc(1, sizeof *c);
    if (c == NULL)
        die("calloc");
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    c->fd = fd;
    c->kind = kind;
    watch(c, EPOLLIN, EPOLL_CTL_ADD);
    return c;
}

static void call_ai(struct call *call)
{
    static const char request[] = "GET /v1/realtime?model=floor HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
                                  "Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(ai_port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die("socket");
    if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0 && errno != EINPROGRESS)
        die("connect to the AI");
    call->ai = new_conn(fd, AI);
    call->ai->call = call;
    put(call->ai, (const uint8_t *)request, sizeof request - 1); /* not open yet: buffered until writable */
}

/* Returns the start of a string field's value, its length in *n; NULL without one. */
static const uint8_t *field(const uint8_t *text, size_t size, const char *name, size_t *n)
{
    const uint8_t *at = memmem(text, size, name, strlen(name)), *end = text + size;
    if (at == NULL)
        return NULL;
    at += strlen(name);
    while (at < end && *at == ' ')
        at++;
    if (at >= end || *at++ != '"')
        return NULL;
    const uint8_t *quote = memchr(at, '"', end - at);
    if (quote == NULL)
        return NULL;
    *n = quote - at;
    return at;
}

static int is(const uint8_t *value, size_t n, const char *wanted) { return n == strlen(wanted) && memcmp(value, wanted, n) == 0; }

static void on_ai_text(struct call *call, const uint8_t *text, size_t size)
{
    size_t n, audio_n;
    const uint8_t *type = field(text, size, "\"type\":", &n);
    if (type == NULL)
        return;
    if (is(type, n, "response.output_audio.delta")) {
        const uint8_t *audio = field(text, size, "\"delta\":", &audio_n);
        if (audio == NULL || !call->ready)
            return;
        long decoded = base64_decode(room(&call->audio, audio_n), audio, audio_n);
        if (decoded > 0)
            call->audio.end += decoded;
        plan(call, now_ns());
    } else if (is(type, n, "session.created")) {
        put_masked(call->ai, "{\"type\":\"session.update\",\"session\":{\"type\":\"realtime\",\"audio\":{\"input\":{\"format\":{\"type\":"
                   "\"audio/pcmu\"}},\"output\":{\"format\":{\"type\":\"audio/pcmu\"}}}}}", NULL, 0, "");
    } else if (is(type, n, "session.updated")) {
        call->ready = 1;
        put_masked(call->ai, "{\"type\":\"response.create\"}", NULL, 0, "");
    } else if (is(type, n, "input_audio_buffer.speech_started")) {
        uint8_t clear[128];
        char body[120];
        int length = snprintf(body, sizeof body, "{\"event\":\"clear\",\"streamSid\":\"%.64s\"}", (char *)call->message + 400);
        size_t at = text_header(clear, length, 0);
        memcpy(clear + at, body, length);
        put(call->phone, clear, at + length);
        heap_remove(call);
        call->audio.start = call->audio.end = 0;
        call->n = 0;
        put_masked(call->ai, "{\"type\":\"conversation.item.truncate\",\"item_id\":\"item\",\"content_index\":0,\"audio_end_ms\":0}", NULL, 0, "");
    }
}

/* -- the phone's side ----------------------------------------------------------------------------------------------- */

static void on_phone_text(struct call *call, const uint8_t *text, size_t size)
{
    size_t n, payload_n, sid_n;
    const uint8_t *event = field(text, size, "\"event\":", &n);
    if (event == NULL)
        return;
    if (is(event, n, "media")) {
        const uint8_t *payload = field(text, size, "\"payload\":", &payload_n);
        if (payload == NULL)
            return;
        if (call->ai == NULL || !call->ready)
            dropped_frames++;
        else
            put_masked(call->ai, "{\"type\":\"input_audio_buffer.append\",\"audio\":\"", payload, payload_n, "\"}");
    } else if (is(event, n, "start") && call->ai == NULL) {
        const uint8_t *sid = field(text, size, "\"streamSid\":", &sid_n);
        char prefix[160];
        if (sid == NULL || sid_n > 64)
            return;
        int length = snprintf(prefix, sizeof prefix, "{\"event\":\"media\",\"streamSid\":\"%.*s\",\"media\":{\"payload\":\"", (int)sid_n, sid);
        call->prefix_bytes = text_header(call->message, length + FRAME_BASE64 + 3, 0);
        memcpy(call->message + call->prefix_bytes, prefix, length);
        call->prefix_bytes += length;
        memcpy(call->message + 400, sid, sid_n); /* behind the longest frame, for a clear */
        call->message[400 + sid_n] = 0;
        call_ai(call);
    } else if (is(event, n, "stop")) {
        end_call(call);
    }
}

/* -- HTTP ----------------------------------------------------------------------------------------------------------- */

static void write_histogram(FILE *to, const char *name, const struct histogram *h)
{
    uint64_t sum = 0;
    for (int i = 0; i < EDGES; i++) {
        sum += h->counts[i];
        fprintf(to, "%s_bucket{le=\"%.10g\"} %llu\n", name, h->edges[i], (unsigned long long)sum);
    }
    sum += h->counts[EDGES];
    fprintf(to, "%s_bucket{le=\"+Inf\"} %llu\n%s_sum %.9f\n%s_count %llu\n", name, (unsigned long long)sum, name, h->sum, name,
            (unsigned long long)sum);
}

static void answer(struct conn *c, const char *type, const char *body, size_t n)
{
    char head[160];
    int length = snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n", type, n);
    put(c, (uint8_t *)head, length);
    put(c, (const uint8_t *)body, n);
}

static void answer_metrics(struct conn *c)
{
    char *page;
    size_t size;
    FILE *to = open_memstream(&page, &size);
    if (to == NULL)
        die("open_memstream");
    write_histogram(to, "gw_tx_send_seconds", &send_seconds);
    write_histogram(to, "gw_tx_lateness_seconds", &lateness_seconds);
    fprintf(to, "gw_tx_underrun_seconds_total %.6f\nfloor_dropped_frames_total %llu\nfloor_send_max_seconds %.9f\nfloor_lateness_max_seconds %.9f\n",
            underrun_seconds, (unsigned long long)dropped_frames, send_seconds.max, lateness_seconds.max);
    fclose(to);
    answer(c, "text/plain", page, size);
    free(page);
}

static void upgrade(struct conn *c, const char *key, size_t n)
{
    uint8_t text[96], digest[20], accept[32];
    char head[200];
    if (n > 40)
        return;
    memcpy(text, key, n);
    memcpy(text + n, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11", 36);
    sha1(text, n + 36, digest);
    size_t accept_n = base64_encode(accept, digest, sizeof digest);
    int length = snprintf(head, sizeof head,
                          "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %.*s\r\n\r\n",
                          (int)accept_n, accept);
    put(c, (uint8_t *)head, length);
    struct call *call = calloc(1, sizeof *call);
    if (call == NULL)
        die("calloc");
    call->heap_at = -1;
    call->phone = c;
    c->kind = PHONE;
    c->call = call;
}

/* Handle a request whose head is complete. Returns 0 while its body is incomplete. */
static int on_request(struct conn *c)
{
    uint8_t *begin = c->in.data + c->in.start, *end;
    size_t size = c->in.end - c->in.start;
    end = memmem(begin, size, "\r\n\r\n", 4);
    if (end == NULL)
        return 0;
    end[2] = 0;
    const char *length = strcasestr((char *)begin, "\r\ncontent-length:");
    size_t whole = end + 4 - begin + (length ? strtoul(length + 17, NULL, 10) : 0);
    if (size < whole) {
        end[2] = '\r';
        return 0;
    }
    if (strncmp((char *)begin, "POST /twilio/voice ", 19) == 0) {
        char body[200];
        int n = snprintf(body, sizeof body, "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response><Connect><Stream url=\"ws://127.0.0.1:%d/media\"/></Connect></Response>", port);
        answer(c, "text/xml", body, n);
    } else if (strncmp((char *)begin, "GET /metrics ", 13) == 0) {
        answer_metrics(c);
    } else if (strncmp((char *)begin, "GET /media ", 11) == 0) {
        char *key = strcasestr((char *)begin, "\r\nsec-websocket-key:");
        if (key != NULL) {
            key += 20;
            key += strspn(key, " ");
            upgrade(c, key, strcspn(key, "\r"));
        }
    } else {
        answer(c, "text/plain", "not here\n", 9);
    }
    c->in.start += whole;
    return 1;
}

/* -- websocket messages --------------------------------------------------------------------------------------------- */

/* Handle one whole message. Returns 0 without one, -1 when the peer has ended. */
static int on_message(struct conn *c)
{
    uint8_t *data = c->in.data + c->in.start;
    size_t size = c->in.end - c->in.start, head = 2, n;
    if (size < 2)
        return 0;
    n = data[1] & 0x7F;
    if (n == 126) {
        if (size < 4)
            return 0;
        n = data[2] << 8 | data[3];
        head = 4;
    } else if (n == 127) {
        if (size < 10)
            return 0;
        n = 0;
        for (int i = 2; i < 10; i++)
            n = n << 8 | data[i];
        head = 10;
    }
    if (n > IN_LIMIT)
        return -1;
    size_t masked = data[1] & 0x80 ? 4 : 0;
    if (size < head + masked + n)
        return 0;
    uint8_t *text = data + head + masked;
    if (masked) {
        uint32_t key;
        memcpy(&key, data + head, 4);
        xor_mask(text, n, key);
    }
    c->in.start += head + masked + n;
    if ((data[0] & 0x0F) == 8)
        return -1;
    if (data[0] == 0x81) {
        if (c->kind == PHONE)
            on_phone_text(c->call, text, n);
        else
            on_ai_text(c->call, text, n);
    }
    return c->fd >= 0;
}

static void shut(struct conn *c)
{
    if (c != NULL && c->fd >= 0) {
        close(c->fd);
        c->fd = -1;
    }
}

/* Close both sockets; keep the memory: an event of the same turn may still refer to it, and a bench's calls are few. */
static void end_call(struct call *call)
{
    heap_remove(call);
    shut(call->phone);
    shut(call->ai);
}

static void on_readable(struct conn *c)
{
    ssize_t n = recv(c->fd, room(&c->in, READ_BYTES), READ_BYTES, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    int ended = n <= 0;
    if (!ended)
        c->in.end += n;
    while (!ended && c->fd >= 0 && c->kind == HTTP && on_request(c))
        ;
    if (!ended && c->kind == AI && c->open == 1) { /* the answer to the upgrade comes first */
        uint8_t *begin = c->in.data + c->in.start, *end = memmem(begin, c->in.end - c->in.start, "\r\n\r\n", 4);
        if (end == NULL)
            return;
        ended = memcmp(begin, "HTTP/1.1 101", 12) != 0;
        c->in.start += end + 4 - begin;
        c->open = 2;
    }
    if (c->kind != HTTP) {
        int more = 1;
        while (!ended && c->fd >= 0 && (more = on_message(c)) > 0)
            ;
        ended |= more < 0;
    }
    if (ended) {
        if (c->call)
            end_call(c->call);
        else
            shut(c);
    }
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: floor PORT AI_PORT LEAD_MS\n");
        return 2;
    }
    port = atoi(argv[1]);
    ai_port = atoi(argv[2]);
    lead_ns = atoi(argv[3]) * 1000000LL;
    signal(SIGPIPE, SIG_IGN);
    memset(values, -1, sizeof values);
    for (int i = 0; i < 64; i++)
        values[(uint8_t)alphabet[i]] = i;
    histogram_init(&send_seconds);
    histogram_init(&lateness_seconds);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int on = 1;
    setsockopt(listen_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(listen_fd, (struct sockaddr *)&at, sizeof at) != 0 || listen(listen_fd, 512) != 0)
        die("listen");
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &listen_fd};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listen_fd, &event);
    event.data.ptr = &timer_fd;
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer_fd, &event);
    puts("ready");
    fflush(stdout);
    for (;;) {
        struct epoll_event events[EVENTS];
        int n = epoll_wait(epoll_fd, events, EVENTS, -1);
        if (n < 0 && errno != EINTR)
            die("epoll_wait");
        tick();
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr == &timer_fd) {
                uint64_t expired;
                if (read(timer_fd, &expired, 8) == 8)
                    armed_ns = 0;
                continue;
            }
            if (events[i].data.ptr == &listen_fd) {
                int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
                if (fd >= 0)
                    new_conn(fd, HTTP)->open = 1;
                continue;
            }
            struct conn *c = events[i].data.ptr;
            if (c->fd >= 0 && events[i].events & EPOLLOUT) {
                c->open |= 1;
                flush(c);
            }
            if (c->fd >= 0 && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
                on_readable(c);
        }
        tick();
    }
}
