/*
 * How fast can a tunnel in user space be on this machine? No protocol, no routes, no filter, a fixed key: only a TUN
 * device with virtio-net header, UDP segmentation and receive offload, one AEAD, and a thread for each direction.
 *
 *     calibration INTERFACE PORT PEER-IPV4 PEER-PORT none|sodium|openssl
 *
 * IPv4 inside and outside. It authenticates nothing but what its own other end sealed: for measuring only.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <netinet/in.h>
#include <openssl/evp.h>
#include <poll.h>
#include <pthread.h>
#include <sodium.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif
#ifndef SOL_UDP
#define SOL_UDP 17
#endif
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif
#ifndef VIRTIO_NET_HDR_GSO_UDP_L4
#define VIRTIO_NET_HDR_GSO_UDP_L4 5
#endif

enum { HEADER = 16, TAG = 16, ROOM = 1 << 17, MAX_SEND = 65000, MAX_SEGMENTS = 64, MAX_MERGED = 65000 };
enum { TCP = 6, UDP = 17, UDP_BYTES = 8 };
enum cipher { NONE, SODIUM, OPENSSL };

typedef struct virtio_net_hdr vnet_t;

static int tun, udp, uso;
static enum cipher cipher;
static struct sockaddr_in peer;
static unsigned char key[32];

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static uint16_t get16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }
static uint32_t get32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return ntohl(v); }
static void put16(uint8_t *p, uint16_t v) { p[0] = (uint8_t)(v >> 8); p[1] = (uint8_t)v; }
static void put32(uint8_t *p, uint32_t v) { v = htonl(v); memcpy(p, &v, 4); }

/* Ones-complement sum in memory order: the compiler makes vector code of the loop. */
static uint64_t sum(const uint8_t *p, size_t n, uint64_t total)
{
    uint32_t word;
    for (; n >= 4; p += 4, n -= 4) {
        memcpy(&word, p, 4);
        total += word;
    }
    if (n) {
        word = 0;
        memcpy(&word, p, n);
        total += word;
    }
    return total;
}

static uint16_t fold(uint64_t total)
{
    while (total >> 16)
        total = (total & 0xffff) + (total >> 16);
    return (uint16_t)total;
}

static void store_checksum(uint8_t *at, uint64_t total)
{
    uint16_t value = (uint16_t)~fold(total);
    memcpy(at, &value, 2);
}

static uint64_t pseudo_sum(const uint8_t *ip, size_t length, int protocol)
{
    return sum(ip + 12, 8, (uint64_t)htons((uint16_t)protocol) + htons((uint16_t)length));
}

static size_t ip_header(const uint8_t *ip) { return (size_t)(ip[0] & 15) * 4; }

static size_t transport_header(const uint8_t *ip)
{
    return ip[9] == TCP ? (size_t)(ip[ip_header(ip) + 12] >> 4) * 4 : UDP_BYTES;
}

static void finish_ip(uint8_t *ip)
{
    ip[10] = ip[11] = 0;
    store_checksum(ip + 10, sum(ip, ip_header(ip), 0));
}

/* ---- one AEAD ---- */

static EVP_CIPHER_CTX *new_context(int encrypt)
{
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    if (!context || !EVP_CipherInit_ex(context, EVP_chacha20_poly1305(), NULL, key, NULL, encrypt))
        exit(1);
    return context;
}

static void seal(EVP_CIPHER_CTX *context, uint8_t *data, size_t n, uint64_t counter)
{
    uint8_t nonce[12] = {0};
    unsigned long long tag_bytes;
    int done;
    memcpy(nonce + 4, &counter, 8);
    if (cipher == SODIUM) {
        crypto_aead_chacha20poly1305_ietf_encrypt_detached(data, data + n, &tag_bytes, data, n, NULL, 0, NULL, nonce,
                                                           key);
    } else if (cipher == OPENSSL) {
        EVP_EncryptInit_ex(context, NULL, NULL, NULL, nonce);
        EVP_EncryptUpdate(context, data, &done, data, (int)n);
        EVP_EncryptFinal_ex(context, data + n, &done);
        EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, TAG, data + n);
    } else {
        memset(data + n, 0, TAG);
    }
}

static int unseal(EVP_CIPHER_CTX *context, uint8_t *data, size_t n, uint64_t counter)
{
    uint8_t nonce[12] = {0};
    int done;
    memcpy(nonce + 4, &counter, 8);
    if (cipher == SODIUM)
        return crypto_aead_chacha20poly1305_ietf_decrypt_detached(data, NULL, data, n, data + n, NULL, 0, nonce, key);
    if (cipher == OPENSSL) {
        EVP_DecryptInit_ex(context, NULL, NULL, NULL, nonce);
        EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, TAG, data + n);
        EVP_DecryptUpdate(context, data, &done, data, (int)n);
        return EVP_DecryptFinal_ex(context, data + n, &done) > 0 ? 0 : -1;
    }
    return 0;
}

/* ---- TUN to UDP ---- */

struct sender {
    EVP_CIPHER_CTX *context;
    uint64_t counter;
    uint8_t *out;
    size_t used, segment;
    int count, closed;
};

static void flush(struct sender *s)
{
    union { char room[CMSG_SPACE(sizeof(uint16_t))]; struct cmsghdr align; } control;
    struct iovec piece = {s->out, s->used};
    struct msghdr message = {.msg_name = &peer, .msg_namelen = sizeof peer, .msg_iov = &piece, .msg_iovlen = 1};
    uint16_t segment = (uint16_t)s->segment;
    if (!s->count)
        return;
    if (s->count > 1) {
        memset(&control, 0, sizeof control);
        message.msg_control = control.room;
        message.msg_controllen = sizeof control.room;
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_UDP;
        header->cmsg_type = UDP_SEGMENT;
        header->cmsg_len = CMSG_LEN(sizeof segment);
        memcpy(CMSG_DATA(header), &segment, sizeof segment);
    }
    while (sendmsg(udp, &message, 0) < 0 && (errno == EINTR || errno == EAGAIN)) {
    }
    s->used = 0;
    s->count = s->closed = 0;
}

/* Room for a packet of n bytes behind the header of its message. */
static uint8_t *place(struct sender *s, size_t n)
{
    size_t whole = HEADER + ((n + 15) & ~(size_t)15) + TAG;
    if (s->count && (s->closed || whole > s->segment || s->used + whole > MAX_SEND || s->count == MAX_SEGMENTS))
        flush(s);
    if (!s->count)
        s->segment = whole;
    return s->out + s->used + HEADER;
}

static void send_placed(struct sender *s, uint8_t *packet, size_t n)
{
    size_t padded = (n + 15) & ~(size_t)15;
    uint8_t *header = packet - HEADER;
    memset(packet + n, 0, padded - n);
    memset(header, 0, HEADER);
    header[0] = 4;
    memcpy(header + 8, &s->counter, 8);
    seal(s->context, packet, padded, s->counter++);
    s->used += HEADER + padded + TAG;
    s->closed = HEADER + padded + TAG < s->segment;
    s->count++;
}

static void send_whole(struct sender *s, const vnet_t *vnet, const uint8_t *ip, size_t n)
{
    uint8_t *at = place(s, n);
    memcpy(at, ip, n);
    if ((vnet->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) && (size_t)vnet->csum_start + vnet->csum_offset + 2 <= n)
        store_checksum(at + vnet->csum_start + vnet->csum_offset, sum(at + vnet->csum_start, n - vnet->csum_start, 0));
    send_placed(s, at, n);
}

static void send_segments(struct sender *s, const vnet_t *vnet, const uint8_t *ip, size_t n)
{
    size_t ip_bytes = ip_header(ip), l4_bytes = transport_header(ip), head = ip_bytes + l4_bytes;
    size_t mss = vnet->gso_size, offset, checksum_at = ip[9] == TCP ? 16 : 6;
    uint32_t sequence = get32(ip + ip_bytes + 4);
    uint16_t ident = get16(ip + 4);
    for (offset = head; offset < n; offset += mss) {
        size_t payload = n - offset < mss ? n - offset : mss, total = head + payload;
        uint8_t *at = place(s, total), *l4 = at + ip_bytes;
        memcpy(at, ip, head);
        memcpy(at + head, ip + offset, payload);
        put16(at + 2, (uint16_t)total);
        put16(at + 4, ident++);
        finish_ip(at);
        if (ip[9] == TCP) {
            put32(l4 + 4, sequence + (uint32_t)(offset - head));
            if (offset + payload < n)
                l4[13] &= (uint8_t)~9; /* FIN and PSH belong to the last one */
        } else {
            put16(l4 + 4, (uint16_t)(UDP_BYTES + payload));
        }
        l4[checksum_at] = l4[checksum_at + 1] = 0;
        store_checksum(l4 + checksum_at, sum(l4, l4_bytes + payload, pseudo_sum(at, l4_bytes + payload, ip[9])));
        send_placed(s, at, total);
    }
}

static void *send_loop(void *unused)
{
    struct sender s = {.context = new_context(1), .out = malloc(ROOM)};
    uint8_t *input = malloc(ROOM);
    struct pollfd readable = {.fd = tun, .events = POLLIN};
    (void)unused;
    if (!s.out || !input)
        exit(1);
    for (;;) {
        ssize_t got = read(tun, input, ROOM);
        vnet_t *vnet = (vnet_t *)input;
        uint8_t *ip = input + sizeof *vnet;
        if (got < 0) {
            if (errno != EAGAIN && errno != EINTR)
                fail("read from TUN");
            flush(&s);
            poll(&readable, 1, -1);
        } else if (got > (ssize_t)sizeof *vnet + 20 && ip[0] >> 4 == 4) {
            size_t n = (size_t)got - sizeof *vnet;
            if (vnet->gso_type == VIRTIO_NET_HDR_GSO_NONE)
                send_whole(&s, vnet, ip, n);
            else if ((ip[9] == TCP || ip[9] == UDP) && vnet->gso_size)
                send_segments(&s, vnet, ip, n);
        }
    }
    return NULL;
}

/* ---- UDP to TUN ---- */

/* The packet that others are being appended to, with the header of the TUN before it. */
struct merged {
    uint8_t *room;
    size_t bytes, mss;
    int pieces;
};

static void write_merged(struct merged *m)
{
    vnet_t *vnet = (vnet_t *)m->room;
    uint8_t *ip = m->room + sizeof *vnet;
    size_t ip_bytes = ip_header(ip);
    if (!m->bytes)
        return;
    memset(vnet, 0, sizeof *vnet);
    if (m->pieces > 1) {
        int tcp = ip[9] == TCP;
        uint16_t partial = fold(pseudo_sum(ip, m->bytes - ip_bytes, ip[9]));
        put16(ip + 2, (uint16_t)m->bytes);
        finish_ip(ip);
        if (!tcp)
            put16(ip + ip_bytes + 4, (uint16_t)(m->bytes - ip_bytes));
        vnet->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
        vnet->gso_type = tcp ? VIRTIO_NET_HDR_GSO_TCPV4 : VIRTIO_NET_HDR_GSO_UDP_L4;
        vnet->gso_size = (uint16_t)m->mss;
        vnet->hdr_len = (uint16_t)(ip_bytes + transport_header(ip));
        vnet->csum_start = (uint16_t)ip_bytes;
        vnet->csum_offset = tcp ? 16 : 6;
        memcpy(ip + ip_bytes + vnet->csum_offset, &partial, 2);
    }
    if (write(tun, m->room, m->bytes + sizeof *vnet) < 0 && errno != EAGAIN && errno != EIO)
        perror("write to TUN");
    m->bytes = 0;
    m->pieces = 0;
}

/* Whether the packet continues the merged one, so that its payload can be appended. */
static int continues(const struct merged *m, const uint8_t *p, size_t n, size_t head)
{
    const uint8_t *first = m->room + sizeof(vnet_t);
    size_t ip_bytes = ip_header(p);
    const uint8_t *a = first + ip_bytes, *b = p + ip_bytes;
    if (!m->bytes || first[9] != p[9] || first[0] != p[0] || memcmp(first + 12, p + 12, 8) || memcmp(a, b, 4))
        return 0;
    if (m->bytes + n - head > MAX_MERGED || n - head > m->mss || (m->bytes - head) % m->mss)
        return 0;
    if (p[9] == UDP)
        return uso && m->pieces < MAX_SEGMENTS && (b[6] || b[7]);
    if (a[12] != b[12] || memcmp(a + 8, b + 8, 4) || memcmp(a + 20, b + 20, head - ip_bytes - 20))
        return 0;
    return !(b[13] & ~0x18) && !(a[13] & ~0x10) && get32(a + 4) + (m->bytes - head) == get32(b + 4);
}

static void deliver(struct merged *m, const uint8_t *p, size_t n)
{
    uint8_t *first = m->room + sizeof(vnet_t);
    size_t ip_bytes = ip_header(p), total = get16(p + 2), head = 0;
    if (total > n || total < 20)
        return;
    if ((p[9] == TCP && total >= ip_bytes + 20) || (p[9] == UDP && total >= ip_bytes + UDP_BYTES))
        head = ip_bytes + transport_header(p);
    if (head && total > head && continues(m, p, total, head)) {
        memcpy(first + m->bytes, p + head, total - head);
        m->bytes += total - head;
        m->pieces++;
        if (p[9] == TCP)
            first[ip_bytes + 13] |= p[ip_bytes + 13] & 8;
        if (total - head < m->mss || (p[9] == TCP && (p[ip_bytes + 13] & 8)))
            write_merged(m);
        return;
    }
    write_merged(m);
    memcpy(first, p, total);
    m->bytes = total;
    m->pieces = 1;
    m->mss = total - head;
    if (!head || total <= head)
        write_merged(m);
}

static size_t segment_bytes(struct msghdr *message, size_t whole)
{
    struct cmsghdr *header;
    int segment;
    for (header = CMSG_FIRSTHDR(message); header; header = CMSG_NXTHDR(message, header))
        if (header->cmsg_level == SOL_UDP && header->cmsg_type == UDP_GRO) {
            memcpy(&segment, CMSG_DATA(header), sizeof segment);
            return segment > 0 ? (size_t)segment : whole;
        }
    return whole;
}

static void *receive_loop(void *unused)
{
    EVP_CIPHER_CTX *context = new_context(0);
    struct merged m = {.room = malloc(ROOM)};
    uint8_t *input = malloc(ROOM);
    (void)unused;
    if (!m.room || !input)
        exit(1);
    for (;;) {
        union { char room[64]; struct cmsghdr align; } control;
        struct iovec piece = {input, ROOM};
        struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = control.room,
                                 .msg_controllen = sizeof control.room};
        ssize_t got = recvmsg(udp, &message, 0);
        if (got <= 0)
            continue;
        size_t segment = segment_bytes(&message, (size_t)got), offset;
        for (offset = 0; offset < (size_t)got; offset += segment) {
            size_t n = (size_t)got - offset < segment ? (size_t)got - offset : segment;
            uint8_t *packet = input + offset + HEADER;
            uint64_t counter;
            if (n < HEADER + TAG + 20)
                continue;
            memcpy(&counter, packet - 8, 8);
            if (unseal(context, packet, n - HEADER - TAG, counter) == 0)
                deliver(&m, packet, n - HEADER - TAG);
        }
        write_merged(&m);
    }
    return NULL;
}

static void open_tun(const char *name)
{
    struct ifreq request = {0};
    tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
    if (tun < 0)
        fail("/dev/net/tun");
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
    request.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR;
    if (ioctl(tun, TUNSETIFF, &request))
        fail("TUN");
    uso = !ioctl(tun, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_USO4 | TUN_F_USO6); /* Linux 6.2 */
    if (!uso && ioctl(tun, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4))
        fail("offloads of TUN");
}

static void open_udp(int port)
{
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int on = 1, buffer = 7 << 20;
    udp = socket(AF_INET, SOCK_DGRAM, 0);
    if (udp < 0 || setsockopt(udp, SOL_UDP, UDP_GRO, &on, sizeof on))
        fail("UDP");
    setsockopt(udp, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer);
    setsockopt(udp, SOL_SOCKET, SO_SNDBUFFORCE, &buffer, sizeof buffer);
    if (bind(udp, (struct sockaddr *)&own, sizeof own))
        fail("bind");
}

int main(int count, char **words)
{
    pthread_t sender, receiver;
    if (count != 6 || sodium_init() < 0)
        return 2;
    cipher = !strcmp(words[5], "none") ? NONE : !strcmp(words[5], "sodium") ? SODIUM : OPENSSL;
    for (int i = 0; i < 32; i++)
        key[i] = (unsigned char)(i * 7);
    open_tun(words[1]);
    open_udp(atoi(words[2]));
    peer.sin_family = AF_INET;
    peer.sin_port = htons((uint16_t)atoi(words[4]));
    if (inet_pton(AF_INET, words[3], &peer.sin_addr) != 1)
        return 2;
    pthread_create(&sender, NULL, send_loop, NULL);
    pthread_create(&receiver, NULL, receive_loop, NULL);
    pthread_join(sender, NULL);
    return 0;
}
