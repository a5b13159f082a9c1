/* A VMM of one page: assigns an xgmac's main interrupt to a guest, forwarded or not, and counts what one takes.
 *
 *     cc -I include -o forward docs/examples/forward.c -lpthread
 *     kvmvfio-emu run --control /tmp/emu.sock -- ./forward [unforwarded|forwarded]
 *
 * Everything but emu() is what a VMM does on a real kernel. emu() asks the emulator, through its control channel, to let
 * a frame arrive, and for its counters: things that on a real machine happen by themselves, or in a tracer.
 */
#define _GNU_SOURCE
#include "emu.h"

#include <asm/kvm.h>
#include <linux/kvm.h>
#include <linux/vfio.h>

#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define DEVICE "fff51000.ethernet"

/* What guest and VMM agree on, as a device tree would tell: kvmvfio_emu/guest/xgmac.py. */
enum { GSI = 80 };
static const uint64_t GIC_DIST = 0x08000000, GIC_CPU = 0x08010000, REGISTERS = 0x0C000000, DOORBELL = 0x0D000000;

/* ---- VFIO: container, group, device ---- */

static int open_device(void)
{
    char link[256], path[64];
    ssize_t length = readlink("/sys/bus/platform/devices/" DEVICE "/iommu_group", link, sizeof link - 1);
    int container = NEED(open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC)), group;

    need((int)length, "iommu_group");
    link[length] = 0;
    snprintf(path, sizeof path, "/dev/vfio/%s", strrchr(link, '/') + 1);
    group = NEED(open(path, O_RDWR | O_CLOEXEC));
    NEED(ioctl(group, VFIO_GROUP_SET_CONTAINER, &container));
    NEED(ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU));
    return NEED(ioctl(group, VFIO_GROUP_GET_DEVICE_FD, DEVICE));
}

static void set_irqs(int device, uint32_t action, int eventfd)
{
    struct {
        struct vfio_irq_set set;
        int32_t fd;
    } request = { .set = { .argsz = sizeof request, .flags = VFIO_IRQ_SET_DATA_EVENTFD | action, .count = 1 },
                  .fd = eventfd };

    NEED(ioctl(device, VFIO_DEVICE_SET_IRQS, &request));
}

/* ---- KVM: machine, vCPU, interrupt controller ---- */

static void set_attr(int device, uint32_t group, uint64_t attr, const void *payload)
{
    struct kvm_device_attr request = { .group = group, .attr = attr, .addr = (uintptr_t)payload };

    NEED(ioctl(device, KVM_SET_DEVICE_ATTR, &request));
}

static int create_device(int vm, uint32_t type)
{
    struct kvm_create_device request = { .type = type };

    NEED(ioctl(vm, KVM_CREATE_DEVICE, &request));
    return (int)request.fd;
}

static int create_vcpu(int vm)
{
    int vcpu = NEED(ioctl(vm, KVM_CREATE_VCPU, 0)), vgic;
    struct kvm_vcpu_init init;

    NEED(ioctl(vm, KVM_ARM_PREFERRED_TARGET, &init));
    NEED(ioctl(vcpu, KVM_ARM_VCPU_INIT, &init));
    vgic = create_device(vm, KVM_DEV_TYPE_ARM_VGIC_V2);
    set_attr(vgic, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V2_ADDR_TYPE_DIST, &GIC_DIST);
    set_attr(vgic, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V2_ADDR_TYPE_CPU, &GIC_CPU);
    return vcpu;
}

static void map_registers(int vm, int device)
{
    struct vfio_region_info info = { .argsz = sizeof info };
    struct kvm_userspace_memory_region slot = { .guest_phys_addr = REGISTERS };
    void *registers;

    NEED(ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &info));
    registers = mmap(NULL, info.size, PROT_READ | PROT_WRITE, MAP_SHARED, device, (off_t)info.offset);
    need(registers == MAP_FAILED ? -1 : 0, "mmap of the registers");
    slot.memory_size = info.size;
    slot.userspace_addr = (uintptr_t)registers;
    NEED(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot));
}

/* ---- the vCPU's thread: the guest rings the doorbell when it is ready, and after each interrupt ---- */

struct vcpu {
    int fd;
    struct kvm_run *run;
    sem_t rang;
};

static void *run_vcpu(void *argument)
{
    struct vcpu *vcpu = argument;

    for (;;) {
        NEED(ioctl(vcpu->fd, KVM_RUN, 0));
        if (vcpu->run->exit_reason != KVM_EXIT_MMIO || vcpu->run->mmio.phys_addr != DOORBELL) {
            fprintf(stderr, "unexpected exit %u\n", vcpu->run->exit_reason);
            exit(1);
        }
        sem_post(&vcpu->rang);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    int forwarded = argc > 1 && !strcmp(argv[1], "forwarded");
    int trigger = NEED(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)), resample = NEED(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    int device = open_device(), kvm = NEED(open("/dev/kvm", O_RDWR | O_CLOEXEC)), vm = NEED(ioctl(kvm, KVM_CREATE_VM, 0));
    struct vcpu vcpu = { .fd = create_vcpu(vm) };
    pthread_t thread;

    emu_connect();
    map_registers(vm, device);
    if (forwarded) {
        struct kvm_arch_forwarded_irq irq = { .fd = (uint32_t)device, .index = 0, .gsi = GSI };
        set_attr(create_device(vm, KVM_DEV_TYPE_VFIO), KVM_DEV_VFIO_DEVICE, KVM_DEV_VFIO_DEVICE_ASSIGN_IRQ, &irq);
    }
    struct kvm_irqfd irqfd = { .fd = (uint32_t)trigger, .gsi = GSI, .flags = KVM_IRQFD_FLAG_RESAMPLE,
                               .resamplefd = (uint32_t)resample };
    NEED(ioctl(vm, KVM_IRQFD, &irqfd));
    set_irqs(device, VFIO_IRQ_SET_ACTION_UNMASK, resample);
    set_irqs(device, VFIO_IRQ_SET_ACTION_TRIGGER, trigger);

    vcpu.run = mmap(NULL, (size_t)NEED(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0)), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu.fd, 0);
    need(vcpu.run == MAP_FAILED ? -1 : 0, "mmap of the run page");
    sem_init(&vcpu.rang, 0, 0);
    pthread_create(&thread, NULL, run_vcpu, &vcpu);
    sem_wait(&vcpu.rang);
    while (!strstr(emu("{\"op\": \"show\", \"view\": \"list-registers\"}\n"), "\"in_guest\": true"))
        ; /* the thread is on its way back into the guest */

    printf("%s", emu("{\"op\": \"show\", \"view\": \"counters\"}\n"));
    emu("{\"op\": \"call\", \"device\": \"" DEVICE "\", \"method\": \"raise_interrupt\"}\n");
    sem_wait(&vcpu.rang);
    printf("%s", emu("{\"op\": \"show\", \"view\": \"counters\"}\n"));
    return 0;
}
