/* What the supervisor's benchmark runs: `clients ioctl N`, `clients busy N`, `clients eventfd N`, `clients mapped N`, `clients open N`. */
#define _GNU_SOURCE
#include <asm/kvm.h>
#include <linux/kvm.h>
#include <linux/vfio.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int compare(const void *a, const void *b)
{
    return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

static void *run(void *vcpu)
{
    ioctl(*(int *)vcpu, KVM_RUN, 0);
    return NULL;
}

static int vcpu_of(int vm)
{
    struct kvm_vcpu_init init;
    int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);

    ioctl(vm, KVM_ARM_PREFERRED_TARGET, &init);
    ioctl(vcpu, KVM_ARM_VCPU_INIT, &init);
    return vcpu;
}

/* Microseconds of one KVM_CHECK_EXTENSION. */
static double ioctls(int kvm, int count)
{
    double start = now();

    for (int i = 0; i < count; i++)
        ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_IRQFD);
    return (now() - start) / count;
}

/* From the write of a trigger to its resamplefd: p50 and p99. The guest completes each interrupt. */
static void eventfds(int kvm, int count)
{
    int vm = ioctl(kvm, KVM_CREATE_VM, 0), vcpu = vcpu_of(vm);
    int trigger = eventfd(0, EFD_NONBLOCK), resample = eventfd(0, EFD_NONBLOCK);
    struct kvm_create_device vgic = { .type = KVM_DEV_TYPE_ARM_VGIC_V2 };
    __u64 dist = 0x08000000, cpu = 0x08010000, value = 1;
    struct kvm_device_attr place = { .group = KVM_DEV_ARM_VGIC_GRP_ADDR };
    struct kvm_irqfd irqfd = { .fd = (__u32)trigger, .gsi = 80, .flags = KVM_IRQFD_FLAG_RESAMPLE,
                               .resamplefd = (__u32)resample };
    struct pollfd wait = { resample, POLLIN, 0 };
    double *took = calloc((size_t)count, sizeof *took);
    pthread_t thread;

    ioctl(vm, KVM_CREATE_DEVICE, &vgic);
    place.attr = KVM_VGIC_V2_ADDR_TYPE_DIST;
    place.addr = (__u64)(unsigned long)&dist;
    ioctl((int)vgic.fd, KVM_SET_DEVICE_ATTR, &place);
    place.attr = KVM_VGIC_V2_ADDR_TYPE_CPU;
    place.addr = (__u64)(unsigned long)&cpu;
    ioctl((int)vgic.fd, KVM_SET_DEVICE_ATTR, &place);
    ioctl(vm, KVM_IRQFD, &irqfd);
    pthread_create(&thread, NULL, run, &vcpu);
    usleep(100000);
    for (int i = 0; i < count; i++) {
        double start = now();
        write(trigger, &value, 8);
        poll(&wait, 1, 5000);
        took[i] = now() - start;
        read(resample, &value, 8);
        value = 1;
    }
    qsort(took, (size_t)count, sizeof *took, compare);
    printf("%.2f %.2f\n", took[count / 2], took[count * 99 / 100]);
}

static double each(int count, double start)
{
    return (now() - start) / count;
}

/* Microseconds of a load and a store through a mapping of the default board's xgmac, a vector load, a pread. */
static void mapped(int count)
{
    int container = open("/dev/vfio/vfio", O_RDWR), group = open("/dev/vfio/5", O_RDWR), device;
    volatile __u32 *regs;
    double load, store, vector, start;
    __u32 value[4];

    ioctl(group, VFIO_GROUP_SET_CONTAINER, &container);
    ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1_IOMMU);
    device = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, "fff51000.ethernet");
    regs = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, device, 0);
    for (int i = 0; i < 100; i++)
        regs[1] = regs[0];
    start = now();
    for (int i = 0; i < count; i++)
        value[0] = regs[0];
    load = each(count, start);
    start = now();
    for (int i = 0; i < count; i++)
        regs[1] = (__u32)i;
    store = each(count, start);
    start = now();
    for (int i = 0; i < count / 10; i++) {
#ifdef __x86_64__
        __asm__ volatile("movups %0, %%xmm0" :: "m"(*(const char(*)[16])(const void *)regs) : "xmm0");
#else
        __asm__ volatile("ldr q0, %0" :: "m"(*(const char(*)[16])(const void *)regs) : "v0");
#endif
    }
    vector = each(count / 10, start);
    start = now();
    for (int i = 0; i < count; i++)
        pread(device, value, 4, 0);
    printf("%.2f %.2f %.2f %.2f\n", load, store, vector, each(count, start));
}

int main(int argc, char **argv)
{
    int count = argc > 2 ? atoi(argv[2]) : 1, kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);

    if (!strcmp(argv[1], "ioctl")) {
        printf("%.3f\n", ioctls(kvm, count));
    } else if (!strcmp(argv[1], "busy")) {
        int vcpu = vcpu_of(ioctl(kvm, KVM_CREATE_VM, 0));
        double idle = ioctls(kvm, count);
        pthread_t thread;
        pthread_create(&thread, NULL, run, &vcpu);
        usleep(100000);
        printf("%.3f %.3f\n", idle, ioctls(kvm, count));
    } else if (!strcmp(argv[1], "eventfd")) {
        eventfds(kvm, count);
    } else if (!strcmp(argv[1], "mapped")) {
        mapped(count);
    } else {
        for (int i = 0; i < count; i++)
            close(open("/etc/passwd", O_RDONLY));
    }
    return 0;
}
