/* No C library between us and the kernel, as in musl's or Go's programs: bare system calls, the old ones where there are any. */
#include "client.h"
#include <sys/syscall.h>

#ifdef SYS_open
#define OPEN(path, flags) syscall(SYS_open, path, flags)
#define STAT(path, buffer) syscall(SYS_stat, path, buffer)
#define LSTAT(path, buffer) syscall(SYS_lstat, path, buffer)
#define ACCESS(path, mode) syscall(SYS_access, path, mode)
#define READLINK(path, buffer, size) syscall(SYS_readlink, path, buffer, size)
#else
#define OPEN(path, flags) syscall(SYS_openat, AT_FDCWD, path, flags)
#define STAT(path, buffer) syscall(SYS_newfstatat, AT_FDCWD, path, buffer, 0)
#define LSTAT(path, buffer) syscall(SYS_newfstatat, AT_FDCWD, path, buffer, AT_SYMLINK_NOFOLLOW)
#define ACCESS(path, mode) syscall(SYS_faccessat, AT_FDCWD, path, mode)
#define READLINK(path, buffer, size) syscall(SYS_readlinkat, AT_FDCWD, path, buffer, size)
#endif

int main(void)
{
    const char *link = "/sys/bus/platform/devices/fff51000.ethernet";
    uint64_t how[3] = { O_RDWR | O_CLOEXEC, 0, 0 };
    struct stat status;
    char text[256] = "";
    long kvm = OPEN("/dev/kvm", O_RDWR), again = syscall(SYS_openat2, AT_FDCWD, "/dev/kvm", how, sizeof how);

    SAY("api", syscall(SYS_ioctl, kvm, KVM_GET_API_VERSION, 0));
    SAY("openat2", syscall(SYS_ioctl, again, KVM_GET_API_VERSION, 0));
    printf("cloexec %d\n", fcntl((int)again, F_GETFD));
    SAY("stat", STAT("/dev/kvm", &status));
    printf("device %d\n", S_ISCHR(status.st_mode));
    SAY("lstat", LSTAT(link, &status));
    printf("link %d\n", S_ISLNK(status.st_mode));
    SAY("access", ACCESS("/dev/vfio/5", R_OK | W_OK));
    SAY("access-nothing", ACCESS("/dev/vfio/99", R_OK));
    SAY("readlink", READLINK(link, text, sizeof text) > 0 ? 0 : -1);
    printf("target %s\n", text);
    return 0;
}
