/* A virtual machine, and a vCPU for which there is no memory. */
#include "client.h"

int main(void)
{
    int vm = new_vm();

    SAY("vm", ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_IRQFD) < 0 ? -1 : 0);
    SAY("vcpu", ioctl(vm, KVM_CREATE_VCPU, 0) < 0 ? -1 : 0);
    SAY("vm-again", ioctl(vm, KVM_CREATE_IRQCHIP, 0));
    return 0;
}
