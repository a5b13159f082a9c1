/* KVM_SET_SIGNAL_MASK: which signals end KVM_RUN is its mask's business, not the thread's. */
#include "client.h"

static int vcpu;
static struct kvm_run *run;
static volatile int started, finished, handled;

static void on_signal(int number) { handled = number; }

static long set_mask(uint32_t length, uint64_t set)
{
    struct { struct kvm_signal_mask mask; uint64_t set; } __attribute__((packed)) request = { { length }, set };

    return ioctl(vcpu, KVM_SET_SIGNAL_MASK, &request);
}

static uint64_t bit(int number) { return 1ull << (number - 1); }

static void *thread(void *unused)
{
    (void)unused;
    started = 1;
    SAY("run", ioctl(vcpu, KVM_RUN, 0));
    finished = 1;
    return NULL;
}

/* Long enough for a pending signal to be seen, measured in calls that are answered meanwhile. */
static void others_go_on(int vm)
{
    for (int i = 0; i < 1000; i++)
        NEED(ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_IRQFD));
}

int main(void)
{
    struct sigaction action = { .sa_handler = on_signal };
    struct timespec none = { 0, 0 };
    sigset_t usr1, pending;
    pthread_t other;
    int vm = new_vm();

    vcpu = new_vcpu(vm);
    run = run_page(vcpu);
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGUSR2, &action, NULL);
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    SAY("length", set_mask(4, 0));

    /* Blocked in the thread, not in KVM_RUN: it ends the call, and waits until the thread asks for it. */
    pthread_sigmask(SIG_BLOCK, &usr1, NULL);
    NEED(set_mask(8, 0));
    raise(SIGUSR1);
    SAY("at-entry", ioctl(vcpu, KVM_RUN, 0));
    sigpending(&pending);
    printf("still-pending %d\n", sigismember(&pending, SIGUSR1));
    printf("taken %d\n", sigtimedwait(&usr1, NULL, &none) == SIGUSR1);

    pthread_create(&other, NULL, thread, NULL); /* inherits the thread's mask */
    while (!started)
        ;
    others_go_on(vm);
    pthread_kill(other, SIGUSR1);
    pthread_join(other, NULL);
    printf("handled %d\n", handled);

    /* Blocked in KVM_RUN, not in the thread: it waits for the end of the call, which another one brings. */
    NEED(set_mask(8, bit(SIGUSR2)));
    started = finished = 0;
    pthread_create(&other, NULL, thread, NULL);
    while (!started)
        ;
    others_go_on(vm);
    pthread_kill(other, SIGUSR2);
    others_go_on(vm);
    printf("early %d\n", finished);
    pthread_kill(other, SIGUSR1);
    pthread_join(other, NULL);
    printf("handled-late %d\n", handled == SIGUSR2);

    /* Without a mask, the thread's own counts again: SIGUSR1 is blocked there. */
    NEED(ioctl(vcpu, KVM_SET_SIGNAL_MASK, NULL));
    started = finished = handled = 0;
    pthread_create(&other, NULL, thread, NULL);
    while (!started)
        ;
    others_go_on(vm);
    pthread_kill(other, SIGUSR1);
    others_go_on(vm);
    printf("early-own %d\n", finished);
    run->immediate_exit = 1; /* a handler would do that */
    pthread_kill(other, SIGUSR2);
    pthread_join(other, NULL);
    printf("handled-own %d\n", handled == SIGUSR2);
    return 0;
}
