/*
 * State-changing calls under signals: restless [rain] [restart] [busy]. Each call is repeated while it says EINTR, as
 * programs do; what was executed twice shows as a count too high, EBUSY or EEXIST. With "rain" a timer sends them,
 * else somebody outside does. With "busy" the handler makes calls of its own.
 */
#include "client.h"
#include <dirent.h>
#include <sys/time.h>

enum { SIGNALS = 2000, TIMES = 100 };

static volatile int caught, busy, probe_vm = -1, handler_odd;
static long interrupted;

static void on_signal(int number)
{
    int saved = errno;

    (void)number;
    if (++caught >= SIGNALS)
        setitimer(ITIMER_REAL, &(struct itimerval){ 0 }, NULL);
    if (busy && ioctl(probe_vm, KVM_CHECK_EXTENSION, KVM_CAP_IRQFD) < 0)
        handler_odd++;
    errno = saved;
}

#define REPEAT(call) ({ long r_; while ((r_ = (call)) < 0 && errno == EINTR) interrupted++; r_; })

static int descriptors(void)
{
    int count = 0;
    DIR *directory;

    while (!(directory = opendir("/proc/self/fd")))
        ;
    while (readdir(directory))
        count++;
    closedir(directory);
    return count;
}

int main(int argc, char **argv)
{
    struct sigaction action = { .sa_handler = on_signal };
    struct itimerval often = { { 0, 200 }, { 0, 200 } }, never = { 0 };
    int rain = 0, container = (int)NEED(open("/dev/vfio/vfio", O_RDWR)), group = (int)NEED(open("/dev/vfio/6", O_RDWR));
    int trigger = (int)NEED(eventfd(0, EFD_NONBLOCK)), odd = 0;
    struct { struct vfio_irq_set set; int fd; } arm = {
        { sizeof arm, VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_PCI_MSI_IRQ_INDEX, 0, 1 }, trigger };
    struct vfio_irq_set fire = { sizeof fire, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_PCI_MSI_IRQ_INDEX,
                                 0, 1 };
    uint64_t fired = 0;
    char *memory = mmap(NULL, TIMES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "restart"))
            action.sa_flags = SA_RESTART;
        if (!strcmp(argv[i], "busy"))
            busy = 1;
        if (!strcmp(argv[i], "rain"))
            rain = 1;
    }
    NEED(ioctl(group, VFIO_GROUP_SET_CONTAINER, &container));
    NEED(ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU));
    int device = (int)NEED(ioctl(group, VFIO_GROUP_GET_DEVICE_FD, "0000:00:01.0"));
    NEED(ioctl(device, VFIO_DEVICE_SET_IRQS, &arm));
    probe_vm = new_vm();
    int kvm = (int)NEED(open("/dev/kvm", O_RDWR)), before = descriptors();

    sigaction(SIGALRM, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
    if (rain)
        setitimer(ITIMER_REAL, &often, NULL);

    for (int i = 0; i < 4 * TIMES; i++)
        odd += REPEAT(ioctl(device, VFIO_DEVICE_SET_IRQS, &fire)) != 0;
    if (read(trigger, &fired, 8) != 8)
        odd++;
    printf("fired %lu\n", (unsigned long)fired);

    for (int i = 0; i < TIMES; i++) {
        struct vfio_iommu_type1_dma_map map = { sizeof map, VFIO_DMA_MAP_FLAG_READ, (uintptr_t)memory + 4096UL * i,
                                                4096UL * i, 4096 };
        odd += REPEAT(ioctl(container, VFIO_IOMMU_MAP_DMA, &map)) != 0;
    }
    for (int i = 0; i < TIMES; i++) {
        struct vfio_iommu_type1_dma_unmap unmap = { sizeof unmap, 0, 4096UL * i, 4096 };
        odd += REPEAT(ioctl(container, VFIO_IOMMU_UNMAP_DMA, &unmap)) != 0 || unmap.size != 4096;
    }
    printf("dma %d\n", odd);

    for (int i = 0; i < TIMES; i++) {
        struct kvm_create_device create = { .type = KVM_DEV_TYPE_VFIO };
        struct kvm_irqfd irqfd = { .fd = (uint32_t)trigger, .gsi = 40 };
        long vm = REPEAT(ioctl(kvm, KVM_CREATE_VM, 0)), vcpu;

        if (vm < 0) {
            odd++;
            continue;
        }
        odd += (vcpu = REPEAT(ioctl(vm, KVM_CREATE_VCPU, 0))) < 0;
        odd += REPEAT(ioctl(vm, KVM_CREATE_DEVICE, &create)) != 0;
        odd += REPEAT(ioctl(vm, KVM_CREATE_IRQCHIP, 0)) != 0;
        odd += REPEAT(ioctl(vm, KVM_IRQFD, &irqfd)) != 0;
        close((int)create.fd);
        close((int)vcpu);
        close((int)vm);
    }
    for (int i = 0; i < TIMES; i++) {
        long fd = REPEAT(open("/dev/kvm", O_RDWR));
        odd += fd < 0;
        close((int)fd);
    }
    setitimer(ITIMER_REAL, &never, NULL);
    signal(SIGUSR1, SIG_IGN);
    printf("odd %d\nleaked %d\nhandler %d\n", odd, descriptors() - before, busy ? handler_odd : 0);
    fprintf(stderr, "caught %d interrupted %ld\n", caught, interrupted);
    return 0;
}
