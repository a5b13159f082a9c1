/* The system call numbers of this machine, of calls that a supervisor may want to see. */
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
    SHOW(rename);
    SHOW(link);
    SHOW(symlink);
#endif
    SHOW(ioctl);
    SHOW(read);
    SHOW(lseek);
    SHOW(fcntl);
    SHOW(mmap);
    SHOW(ftruncate);
    SHOW(fallocate);
    SHOW(pread64);
    SHOW(pwrite64);
    SHOW(openat);
    SHOW(newfstatat);
    SHOW(readlinkat);
    SHOW(faccessat);
    SHOW(statx);
    SHOW(openat2);
    SHOW(faccessat2);
#ifdef SYS_renameat
    SHOW(renameat);
#endif
    SHOW(renameat2);
    SHOW(linkat);
    SHOW(symlinkat);
    SHOW(mount);
    SHOW(umount2);
    SHOW(move_mount);
    SHOW(seccomp);
    return 0;
}
