/* Opens until there are no more descriptors: EMFILE as the kernel gives it, and all is well afterwards. */
#include "client.h"

int main(void)
{
    struct rlimit limit = { 64, 64 };
    int kvm = (int)NEED(open("/dev/kvm", O_RDWR)), last = kvm, opened = 0;

    setrlimit(RLIMIT_NOFILE, &limit);
    for (int fd; (fd = open("/dev/kvm", O_RDWR)) >= 0; last = fd)
        opened++;
    printf("full %d %s\n", opened > 50, strerrorname_np(errno));
    SAY("no-vm", ioctl(kvm, KVM_CREATE_VM, 0));
    close(last);
    SAY("vm-again", ioctl(kvm, KVM_CREATE_VM, 0) < 0 ? -1 : 0);
    return 0;
}
