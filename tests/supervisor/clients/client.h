/* What the test clients share: a call that must succeed, and printing what one answered. */
#define _GNU_SOURCE
#include <asm/kvm.h>
#include <linux/kvm.h>
#include <linux/vfio.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static inline long need(long result, const char *what)
{
    if (result < 0) {
        fprintf(stderr, "%s: %s\n", what, strerror(errno));
        exit(1);
    }
    return result;
}
#define NEED(call) need((call), #call)
/* "label value errno" */
#define SAY(label, call) do { errno = 0; long r_ = (call); printf("%s %ld %s\n", label, r_, r_ < 0 ? strerrorname_np(errno) : "0"); } while (0)

static inline int new_vm(void)
{
    int kvm = (int)NEED(open("/dev/kvm", O_RDWR | O_CLOEXEC)), vm = (int)NEED(ioctl(kvm, KVM_CREATE_VM, 0));
    close(kvm);
    return vm;
}

/* A vCPU that can run: initialised with these features (bits), without an interrupt controller. */
static inline int new_vcpu_with(int vm, uint32_t features)
{
    struct kvm_vcpu_init init;
    int vcpu = (int)NEED(ioctl(vm, KVM_CREATE_VCPU, 0));
    NEED(ioctl(vm, KVM_ARM_PREFERRED_TARGET, &init));
    init.features[0] = features;
    NEED(ioctl(vcpu, KVM_ARM_VCPU_INIT, &init));
    return vcpu;
}

static inline int new_vcpu(int vm) { return new_vcpu_with(vm, 0); }

static inline struct kvm_run *run_page(int vcpu)
{
    void *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    need(page == MAP_FAILED ? -1 : 0, "mmap of the run page");
    return page;
}
