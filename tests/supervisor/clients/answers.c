/* Plain calls with good and bad arguments, one line each. */
#include "client.h"

int main(void)
{
    int kvm = (int)NEED(open("/dev/kvm", O_RDWR | O_CLOEXEC)), vm;
    struct kvm_create_device create = { .type = KVM_DEV_TYPE_VFIO };
    char *pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    SAY("api", ioctl(kvm, KVM_GET_API_VERSION, 0));
    SAY("api-argument", ioctl(kvm, KVM_GET_API_VERSION, 1));
    vm = (int)NEED(ioctl(kvm, KVM_CREATE_VM, 0));
    SAY("unknown", ioctl(vm, _IO(KVMIO, 0xfe), 0));
    SAY("null", ioctl(vm, KVM_IRQFD, NULL));
    SAY("wild", ioctl(vm, KVM_IRQFD, (void *)0x10));
    SAY("top", ioctl(vm, KVM_IRQFD, (void *)-1L));
    munmap(pages + 4096, 4096);
    SAY("across", ioctl(vm, KVM_IRQFD, pages + 4096 - 16));
    memset(pages, 0, 4096);
    ((struct kvm_irqfd *)(pages + 4096 - 32))->fd = (uint32_t)-1;
    SAY("last-bytes", ioctl(vm, KVM_IRQFD, pages + 4096 - 32));
    SAY("create", ioctl(vm, KVM_CREATE_DEVICE, &create));
    SAY("not-vfio", ioctl((int)create.fd, KVM_SET_DEVICE_ATTR,
                          &(struct kvm_device_attr){ .group = 1, .attr = 1, .addr = (uintptr_t)&vm }));
    SAY("closed", ioctl(999, KVM_CREATE_VM, 0));
    SAY("foreign", ioctl(0, KVM_GET_API_VERSION, 0));
    printf("cloexec %d\n", fcntl(vm, F_GETFD));
    return 7;
}
