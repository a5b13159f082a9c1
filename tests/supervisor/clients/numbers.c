/* The system call numbers of this machine, of all that the supervisor has names for. */
#include <stdio.h>
#include <sys/syscall.h>

#define SHOW(name) printf(#name " %d\n", (int)SYS_##name)

int main(void)
{
#ifdef SYS_open
    SHOW(open);
    SHOW(stat);
    SHOW(lstat);
    SHOW(access);
    SHOW(creat);
    SHOW(readlink);
#endif
    SHOW(ioctl);
    SHOW(pread64);
    SHOW(pwrite64);
    SHOW(openat);
    SHOW(newfstatat);
    SHOW(readlinkat);
    SHOW(faccessat);
    SHOW(statx);
    SHOW(openat2);
    SHOW(faccessat2);
    SHOW(seccomp);
    return 0;
}
