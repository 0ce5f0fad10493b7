/* A disk that fails: preloaded into a process, it lets chosen calls on chosen files fail or take long.

   EPOCHTOP_FAULT=OPERATION:ERROR:FIRST:COUNT:PART is read at every call, so that a program can change it while it runs.
   OPERATION is write, sync, rename, open or truncate; ERROR a number of errno, or 0 for a delay of 50 ms; the calls FIRST to
   FIRST + COUNT - 1 on paths that contain PART fail. Counting begins again when the variable changes. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char known[PATH_MAX + 128];
static long calls;

/* Adds a byte to the file EPOCHTOP_FAULT_HITS, so that a test knows that something has failed. */
static void note(void) {
    const char *path = getenv("EPOCHTOP_FAULT_HITS");
    int fd = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND, 0600) : -1;
    if (fd < 0) return;
    syscall(SYS_write, fd, ".", 1);
    syscall(SYS_close, fd);
}

/* The errno that this call must fail with; 0 for none. */
static int fault(const char *operation, const char *path) {
    char chosen[16], part[PATH_MAX];
    int error;
    long first, count, number;
    const char *setting = getenv("EPOCHTOP_FAULT");
    if (!setting || sscanf(setting, "%15[a-z]:%d:%ld:%ld:%4095[^\n]", chosen, &error, &first, &count, part) != 5) return 0;
    if (strcmp(chosen, operation) || !strstr(path, part)) return 0;
    pthread_mutex_lock(&lock);
    if (strncmp(known, setting, sizeof known - 1)) {
        strncpy(known, setting, sizeof known - 1);
        calls = 0;
    }
    number = ++calls;
    pthread_mutex_unlock(&lock);
    if (number < first || number >= first + count) return 0;
    note();
    if (error) return error;
    usleep(50000);
    return 0;
}

static int fault_of(const char *operation, int descriptor) {
    char link[64], path[PATH_MAX];
    ssize_t length;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return fault(operation, path);
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define FAIL_OF(operation, descriptor) \
    do { int error_ = fault_of(operation, descriptor); if (error_) { errno = error_; return -1; } } while (0)
#define FAIL(operation, path) \
    do { int error_ = fault(operation, path); if (error_) { errno = error_; return -1; } } while (0)

ssize_t write(int fd, const void *bytes, size_t count) { FAIL_OF("write", fd); return NEXT(write)(fd, bytes, count); }
ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) { FAIL_OF("write", fd); return NEXT(pwrite)(fd, bytes, count, at); }
ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) { FAIL_OF("write", fd); return NEXT(pwrite64)(fd, bytes, count, at); }
ssize_t writev(int fd, const struct iovec *parts, int count) { FAIL_OF("write", fd); return NEXT(writev)(fd, parts, count); }
int fsync(int fd) { FAIL_OF("sync", fd); return NEXT(fsync)(fd); }
int fdatasync(int fd) { FAIL_OF("sync", fd); return NEXT(fdatasync)(fd); }
int ftruncate(int fd, off_t length) { FAIL_OF("truncate", fd); return NEXT(ftruncate)(fd, length); }
int ftruncate64(int fd, off64_t length) { FAIL_OF("truncate", fd); return NEXT(ftruncate64)(fd, length); }
int rename(const char *from, const char *to) { FAIL("rename", to); return NEXT(rename)(from, to); }
int renameat(int a, const char *from, int b, const char *to) { FAIL("rename", to); return NEXT(renameat)(a, from, b, to); }

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        mode_t mode = 0; \
        if (flags & (O_CREAT | O_TMPFILE)) { va_list list; va_start(list, flags); mode = va_arg(list, mode_t); va_end(list); } \
        if (flags & (O_CREAT | O_WRONLY | O_RDWR)) FAIL("open", path); \
        return NEXT(name)(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)
