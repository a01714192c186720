/* Clears the part of the stack that ciphers have used.
 *
 * Assembly of OpenSSL and BoringSSL keeps keys on the stack and does not clear them; which does so depends on what
 * the processor has. */
#ifndef MESHD_STACKWIPE_H
#define MESHD_STACKWIPE_H

#include <stdint.h>
#include <string.h>

/* As deep as sealing gets below whoever wipes, with room to spare. */
#define STACK_WIPE_BYTES 8192

static __attribute__((noinline)) void stack_wipe(void)
{
    uint8_t used[STACK_WIPE_BYTES];
    explicit_bzero(used, sizeof used);
}

#endif
