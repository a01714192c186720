/*
 * Preloaded, counts the memory requests of every thread but the first, which runs the interpreter. Read by
 * meshd_requests(); the first thread's own requests are in meshd_main_requests(), to see that counting works.
 */
#define _GNU_SOURCE
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

static unsigned long requests, main_requests;
static __thread int kind; /* 1 first thread, 2 another one; 0 not asked yet */

static void count(void)
{
    if (!kind)
        kind = syscall(SYS_gettid) == getpid() ? 1 : 2;
    __atomic_fetch_add(kind == 1 ? &main_requests : &requests, 1, __ATOMIC_RELAXED);
}

unsigned long meshd_requests(void) { return __atomic_load_n(&requests, __ATOMIC_RELAXED); }
unsigned long meshd_main_requests(void) { return __atomic_load_n(&main_requests, __ATOMIC_RELAXED); }

void *malloc(size_t n)
{
    count();
    return __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
    count();
    return __libc_calloc(n, size);
}

void *realloc(void *old, size_t n)
{
    count();
    return __libc_realloc(old, n);
}

void *memalign(size_t alignment, size_t n)
{
    count();
    return __libc_memalign(alignment, n);
}

void *aligned_alloc(size_t alignment, size_t n)
{
    count();
    return __libc_memalign(alignment, n);
}

int posix_memalign(void **at, size_t alignment, size_t n)
{
    count();
    *at = __libc_memalign(alignment, n);
    return *at ? 0 : 12;
}

void free(void *old)
{
    if (old)
        count();
    __libc_free(old);
}

void *mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset)
{
    count();
    return (void *)syscall(SYS_mmap, at, n, protection, flags, fd, offset);
}

void *mmap64(void *, size_t, int, int, int, off_t) __attribute__((alias("mmap")));
