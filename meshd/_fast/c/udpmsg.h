/* UDP segmentation control messages: build one for sending, find one after receiving. */
#ifndef MESHD_UDPMSG_H
#define MESHD_UDPMSG_H

#include <netinet/in.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#ifndef SOL_UDP
#define SOL_UDP 17
#endif
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

#define UDPMSG_SEND_SPACE CMSG_SPACE(sizeof(uint16_t))
#define UDPMSG_RECEIVE_SPACE 128

/* Adds UDP_SEGMENT=segment to m; control has room for UDPMSG_SEND_SPACE bytes. */
static inline void udpmsg_set_segment(struct msghdr *m, uint8_t *control, uint16_t segment)
{
    struct cmsghdr *c;
    m->msg_control = control;
    m->msg_controllen = UDPMSG_SEND_SPACE;
    c = CMSG_FIRSTHDR(m);
    c->cmsg_level = SOL_UDP;
    c->cmsg_type = UDP_SEGMENT;
    c->cmsg_len = CMSG_LEN(sizeof segment);
    memcpy(CMSG_DATA(c), &segment, sizeof segment);
}

/* The UDP_GRO segment size, wherever it stands among the control messages; 0 = absent. */
static inline uint32_t udpmsg_gro_size(const struct msghdr *m)
{
    struct cmsghdr *c;
    for (c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR((struct msghdr *)m, c)) {
        size_t n;
        if (c->cmsg_level != SOL_UDP || c->cmsg_type != UDP_GRO || c->cmsg_len < CMSG_LEN(sizeof(uint16_t)))
            continue;
        if (c->cmsg_len > (size_t)((const uint8_t *)m->msg_control + m->msg_controllen - (const uint8_t *)c))
            return 0;
        n = c->cmsg_len - CMSG_LEN(0);
        if (n >= sizeof(int)) {
            int wide;
            memcpy(&wide, CMSG_DATA(c), sizeof wide);
            return wide > 0 ? (uint32_t)wide : 0;
        } else {
            uint16_t narrow;
            memcpy(&narrow, CMSG_DATA(c), sizeof narrow);
            return narrow;
        }
    }
    return 0;
}

/* Datagrams that this socket had no room for, since it was made; 0 where the system does not tell. */
static inline uint32_t udpmsg_overflows(int fd)
{
#ifdef SO_MEMINFO
    uint32_t info[9] = {0}; /* the last is SK_MEMINFO_DROPS */
    socklen_t n = sizeof(info);
    if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &n) == 0 && n >= sizeof(info))
        return info[8];
#endif
    return 0;
}

#endif
