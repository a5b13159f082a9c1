/* In KVM_RUN for ever, whatever it answers. */
#include "client.h"

int main(void)
{
    int vcpu = new_vcpu(new_vm());

    puts("in KVM_RUN");
    fflush(stdout);
    for (;;)
        ioctl(vcpu, KVM_RUN, 0);
}
