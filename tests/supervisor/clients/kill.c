/* Killed in the middle of KVM_RUN, by itself. */
#include "client.h"

static void *killer(void *unused)
{
    (void)unused;
    usleep(20000);
    kill(getpid(), SIGKILL);
    return NULL;
}

int main(void)
{
    pthread_t other;
    int vcpu = new_vcpu(new_vm());

    pthread_create(&other, NULL, killer, NULL);
    ioctl(vcpu, KVM_RUN, 0);
    return 0;
}
