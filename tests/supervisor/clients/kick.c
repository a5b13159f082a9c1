/* KVM_RUN in a thread of its own, blocked in the guest's WFI, ended by a signal as QEMU does it. */
#include "client.h"

static int vcpu;
static struct kvm_run *run;
static volatile int started;

static void on_signal(int number) { (void)number; }

static void *thread(void *unused)
{
    (void)unused;
    started = 1;
    SAY("run", ioctl(vcpu, KVM_RUN, 0));
    printf("reason %u\n", run->exit_reason);
    return NULL;
}

int main(int argc, char **argv)
{
    struct sigaction action = { .sa_handler = on_signal, .sa_flags = argc > 1 ? SA_RESTART : 0 };
    pthread_t other;
    int vm = new_vm();

    (void)argv;
    vcpu = new_vcpu(vm);
    run = run_page(vcpu);
    sigaction(SIGUSR1, &action, NULL);
    run->immediate_exit = 1;
    SAY("immediate", ioctl(vcpu, KVM_RUN, 0));
    run->immediate_exit = 0;
    pthread_create(&other, NULL, thread, NULL);
    while (!started)
        ;
    /* Meanwhile others are served. */
    for (int i = 0; i < 1000; i++)
        NEED(ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_IRQFD));
    pthread_kill(other, SIGUSR1);
    pthread_join(other, NULL);
    return 0;
}
