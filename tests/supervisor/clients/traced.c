/* A program that traces its own child, which uses /dev/kvm: both are under the supervisor. traced [syscalls] */
#include "client.h"
#include <sys/ptrace.h>

static int child(void)
{
    NEED(ptrace(PTRACE_TRACEME, 0, NULL, NULL));
    raise(SIGSTOP);
    int vm = new_vm(), vcpu = new_vcpu(vm);
    struct kvm_run *run = run_page(vcpu);

    run->immediate_exit = 1;
    SAY("run", ioctl(vcpu, KVM_RUN, 0));
    SAY("bad", ioctl(vm, KVM_IRQFD, (void *)16));
    for (int i = 0; i < 100; i++)
        close((int)NEED(open("/dev/kvm", O_RDWR)));
    raise(SIGSTOP);
    SAY("after", ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_IRQFD));
    fflush(stdout);
    _exit(3);
}

int main(int argc, char **argv)
{
    int status, stops = 0, signals = 0, request = argc > 1 ? PTRACE_SYSCALL : PTRACE_CONT;
    pid_t pid = fork();

    (void)argv;
    if (!pid)
        return child();
    while (NEED(waitpid(pid, &status, 0)) == pid && WIFSTOPPED(status)) {
        if (WSTOPSIG(status) == SIGSTOP)
            signals++;
        else
            stops++;
        NEED(ptrace(request, pid, NULL, NULL));
    }
    printf("exit %d\nsignals %d\nsyscalls %d\n", WEXITSTATUS(status), signals, stops > 200);
    return 0;
}
