/* stat stat|statx: print the struct on stdin; stat raw PATH: write the kernel's struct to stdout. */
#include "client.h"
#include <sys/syscall.h>

#define SHOW(name, format, value) printf(name " " format "\n", value)

int main(int argc, char **argv)
{
    struct stat st = { 0 };
    struct statx stx;

    if (argc == 3 && !strcmp(argv[1], "raw")) {
#ifdef SYS_stat
        NEED(syscall(SYS_stat, argv[2], &st));
#else
        NEED(syscall(SYS_newfstatat, AT_FDCWD, argv[2], &st, 0));
#endif
        return fwrite(&st, sizeof st, 1, stdout) != 1;
    }
    if (argc == 2 && !strcmp(argv[1], "stat")) {
        if (fread(&st, 1, sizeof st + 1, stdin) != sizeof st)
            return 2;
        SHOW("dev", "%lu", (unsigned long)st.st_dev);
        SHOW("ino", "%lu", (unsigned long)st.st_ino);
        SHOW("nlink", "%lu", (unsigned long)st.st_nlink);
        SHOW("mode", "%o", st.st_mode);
        SHOW("uid", "%u", st.st_uid);
        SHOW("gid", "%u", st.st_gid);
        SHOW("size", "%ld", (long)st.st_size);
        SHOW("blksize", "%ld", (long)st.st_blksize);
        SHOW("blocks", "%ld", (long)st.st_blocks);
        printf("atime %ld.%09ld\n", st.st_atim.tv_sec, st.st_atim.tv_nsec);
        printf("mtime %ld.%09ld\n", st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
        printf("ctime %ld.%09ld\n", st.st_ctim.tv_sec, st.st_ctim.tv_nsec);
        SHOW("rdev", "%lu", (unsigned long)st.st_rdev);
        return 0;
    }
    if (argc != 2 || fread(&stx, 1, sizeof stx, stdin) != sizeof stx)
        return 2;
    SHOW("mask", "%x", stx.stx_mask);
    SHOW("dev", "%lu", (unsigned long)(stx.stx_dev_major << 8 | stx.stx_dev_minor));
    SHOW("ino", "%llu", (unsigned long long)stx.stx_ino);
    SHOW("nlink", "%u", stx.stx_nlink);
    SHOW("mode", "%o", stx.stx_mode);
    SHOW("uid", "%u", stx.stx_uid);
    SHOW("gid", "%u", stx.stx_gid);
    SHOW("size", "%llu", (unsigned long long)stx.stx_size);
    SHOW("blksize", "%u", stx.stx_blksize);
    SHOW("blocks", "%llu", (unsigned long long)stx.stx_blocks);
    printf("atime %lld.%09u\n", (long long)stx.stx_atime.tv_sec, stx.stx_atime.tv_nsec);
    printf("mtime %lld.%09u\n", (long long)stx.stx_mtime.tv_sec, stx.stx_mtime.tv_nsec);
    printf("ctime %lld.%09u\n", (long long)stx.stx_ctime.tv_sec, stx.stx_ctime.tv_nsec);
    printf("btime %lld.%09u\n", (long long)stx.stx_btime.tv_sec, stx.stx_btime.tv_nsec);
    SHOW("rdev", "%lu", (unsigned long)(stx.stx_rdev_major << 8 | stx.stx_rdev_minor));
    return 0;
}
