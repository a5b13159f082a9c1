/* A VMM that loads a machine code guest, gives it an xgmac by VFIO, and counts what its interrupts take.
 *
 *     cc -I include -o vmm docs/examples/vmm.c -lpthread
 *     kvmvfio-emu run --control /tmp/emu.sock -- ./vmm docs/examples/baremetal/guest.bin [unforwarded|forwarded]
 *     kvmvfio-emu run --control /tmp/emu.sock -- ./vmm -32 docs/examples/baremetal/guest32.bin [...]
 *
 * Further arguments: how many interrupts (1), how many vCPUs (1). Everything but emu() is what a VMM does on a real
 * kernel; emu() asks the emulator, through its control channel, to let a frame arrive, and for its counters.
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

/* What guest and VMM agree on: baremetal/main.c. */
enum { GSI = 80, RAM = 0x10000, SHARED = 0x40, MOST_VCPUS = 4 };
static const uint64_t GIC_DIST = 0x08000000, GIC_CPU = 0x08010000, REGISTERS = 0x0C000000, DOORBELL = 0x0D000000;
struct shared {
    volatile uint64_t vcpus, waits, handled, fault;
};

static void *map(int fd, size_t size, off_t offset)
{
    void *found = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset);

    need(found == MAP_FAILED ? -1 : 0, "mmap");
    return found;
}

static long counter(const char *name)
{
    char key[64];
    const char *found;

    snprintf(key, sizeof key, "\"%s\": ", name);
    found = strstr(emu("{\"op\": \"show\", \"view\": \"counters\"}\n"), key);
    return found ? atol(found + strlen(key)) : 0;
}

/* ---- VFIO ---- */

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

/* ---- KVM ---- */

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

static void add_memory(int vm, uint32_t slot, uint64_t address, uint64_t size, void *memory)
{
    struct kvm_userspace_memory_region region = { .slot = slot, .guest_phys_addr = address, .memory_size = size,
                                                  .userspace_addr = (uintptr_t)memory };

    NEED(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region));
}

/* A vCPU starts at address 0 after its reset, in EL1 or, with EL1_32BIT among its features, in Supervisor mode: no
 * register needs to be set. All but the first wait for CPU_ON. */
static int create_vcpu(int vm, int number, uint32_t features)
{
    int vcpu = NEED(ioctl(vm, KVM_CREATE_VCPU, number));
    struct kvm_vcpu_init init;

    NEED(ioctl(vm, KVM_ARM_PREFERRED_TARGET, &init));
    init.features[0] = features | (number ? 1u << KVM_ARM_VCPU_POWER_OFF : 0);
    NEED(ioctl(vcpu, KVM_ARM_VCPU_INIT, &init));
    return vcpu;
}

static struct shared *load(int vm, const char *path)
{
    int image = NEED(open(path, O_RDONLY | O_CLOEXEC)), memory = NEED(memfd_create("guest", MFD_CLOEXEC));
    char *ram;

    NEED(ftruncate(memory, RAM));
    ram = map(memory, RAM, 0);
    NEED((int)read(image, ram, RAM));
    close(image);
    add_memory(vm, 0, 0, RAM, ram);
    return (struct shared *)(ram + SHARED);
}

static void map_registers(int vm, int device)
{
    struct vfio_region_info info = { .argsz = sizeof info };

    NEED(ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &info));
    add_memory(vm, 1, REGISTERS, info.size, map(device, info.size, (off_t)info.offset));
}

/* ---- a vCPU's thread ---- */

static sem_t rang; /* the guest's driver is ready, or has handled an interrupt */

struct vcpu {
    int fd;
    struct kvm_run *run;
    pthread_t thread;
};

static void *run_vcpu(void *argument)
{
    struct vcpu *vcpu = argument;

    for (;;) {
        NEED(ioctl(vcpu->fd, KVM_RUN, 0));
        if (vcpu->run->exit_reason != KVM_EXIT_MMIO || vcpu->run->mmio.phys_addr != DOORBELL) {
            fprintf(stderr, "unexpected exit %u at %#llx\n", vcpu->run->exit_reason, vcpu->run->mmio.phys_addr);
            exit(1);
        }
        sem_post(&rang);
    }
    return NULL;
}

static void check(const struct shared *shared)
{
    if (shared->fault) {
        fprintf(stderr, "the guest took an exception: %#llx\n", (unsigned long long)shared->fault);
        exit(1);
    }
}

int main(int argc, char **argv)
{
    static const char *const counters[] = { "vmexit_irq", "vmexit_kick", "vmexit_maint", "host_irq", "host_irq_lazy",
        "host_irq_maint", "eventfd_trigger", "eventfd_resample", "work", "gicd_mask", "gicd_unmask", "set_irq",
        "resample_ack", "vmentry", "guest_iar", "guest_eoi", "hw_deactivate", "line_up" };
    enum { COUNTERS = sizeof counters / sizeof *counters };
    int is_32bit = argc > 1 && !strcmp(argv[1], "-32");
    uint32_t features = 1u << KVM_ARM_VCPU_PSCI_0_2;
#ifdef KVM_ARM_VCPU_EL1_32BIT /* a 32-bit host has no other guests */
    features |= is_32bit ? 1u << KVM_ARM_VCPU_EL1_32BIT : 0;
#endif

    argc -= is_32bit;
    argv += is_32bit;
    int forwarded = argc > 2 && !strcmp(argv[2], "forwarded");
    long interrupts = argc > 3 ? atol(argv[3]) : 1, vcpus = argc > 4 ? atol(argv[4]) : 1, before[COUNTERS];
    int trigger = NEED(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)), resample = NEED(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    int device = open_device(), kvm = NEED(open("/dev/kvm", O_RDWR | O_CLOEXEC)), vm = NEED(ioctl(kvm, KVM_CREATE_VM, 0));
    struct vcpu vcpu[MOST_VCPUS];
    struct shared *shared;

    need(argc > 1 && vcpus >= 1 && vcpus <= MOST_VCPUS ? 0 : -1, "vmm [-32] IMAGE [forwarded] [INTERRUPTS] [VCPUS]");
    emu_connect();
    for (int number = 0; number < vcpus; number++) {
        vcpu[number].fd = create_vcpu(vm, number, features);
        vcpu[number].run = map(vcpu[number].fd, (size_t)NEED(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0)), 0);
    }
    int vgic = create_device(vm, KVM_DEV_TYPE_ARM_VGIC_V2);
    set_attr(vgic, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V2_ADDR_TYPE_DIST, &GIC_DIST);
    set_attr(vgic, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V2_ADDR_TYPE_CPU, &GIC_CPU);
    shared = load(vm, argv[1]);
    shared->vcpus = (uint64_t)vcpus;
    shared->waits = vcpus > 1; /* alone it computes, as the guest of forward.c does */
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

    sem_init(&rang, 0, 0);
    for (int number = 0; number < vcpus; number++)
        pthread_create(&vcpu[number].thread, NULL, run_vcpu, &vcpu[number]);
    sem_wait(&rang);
    check(shared);
    while (!shared->waits && !strstr(emu("{\"op\": \"show\", \"view\": \"list-registers\"}\n"), "\"in_guest\": true"))
        ; /* the thread is on its way back into the guest */
    for (int index = 0; index < COUNTERS; index++)
        before[index] = counter(counters[index]);
    for (long number = 0; number < interrupts; number++) {
        emu("{\"op\": \"call\", \"device\": \"" DEVICE "\", \"method\": \"raise_interrupt\"}\n");
        sem_wait(&rang);
        check(shared);
    }
    for (int index = 0; index < COUNTERS; index++)
        printf("%-18s%ld\n", counters[index], counter(counters[index]) - before[index]);
    printf("%-18s%llu\n", "handled", (unsigned long long)shared->handled);
    return 0;
}
