/* full [LIMIT]: opens until there are no more descriptors: EMFILE as the kernel gives it, and all is well afterwards. */
#include "client.h"

int main(int argc, char **argv)
{
    int most = argc > 1 ? atoi(argv[1]) : 64;
    struct rlimit limit = { most, most };
    int kvm = (int)NEED(open("/dev/kvm", O_RDWR)), last = kvm, opened = 0;

    NEED(setrlimit(RLIMIT_NOFILE, &limit));
    for (int fd; (fd = open("/dev/kvm", O_RDWR)) >= 0; last = fd)
        opened++;
    printf("full %d %s\n", opened > most - 14, strerrorname_np(errno));
    SAY("no-vm", ioctl(kvm, KVM_CREATE_VM, 0));
    close(last);
    SAY("vm-again", ioctl(kvm, KVM_CREATE_VM, 0) < 0 ? -1 : 0);
    return 0;
}
