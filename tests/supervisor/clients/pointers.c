/* Calls on descriptors with pointers into nothing and counts beyond all measure: an errno each, nothing else happens. */
#include "client.h"

#define GIANT (4ull << 30)
static volatile size_t endless = -1;

int main(void)
{
    int container = (int)NEED(open("/dev/vfio/vfio", O_RDWR)), group = (int)NEED(open("/dev/vfio/6", O_RDWR));
    char *pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *end = pages + 4096;
    void *volatile bad[] = { NULL, (void *)16, end, (void *)-1L, (void *)-8L };
    struct vfio_region_info region = { .argsz = sizeof region, .index = VFIO_PCI_CONFIG_REGION_INDEX };
    struct { struct vfio_irq_set set; int fd; } arm = {
        { sizeof arm, VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_PCI_MSI_IRQ_INDEX, 0, 1 }, -1 };
    int odd = 0;

    munmap(end, 4096);
    NEED(ioctl(group, VFIO_GROUP_SET_CONTAINER, &container));
    NEED(ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU));
    int device = (int)NEED(ioctl(group, VFIO_GROUP_GET_DEVICE_FD, "0000:00:01.0")), vm = new_vm();
    int requests[] = { VFIO_DEVICE_GET_INFO, VFIO_DEVICE_GET_REGION_INFO, VFIO_DEVICE_GET_IRQ_INFO, VFIO_DEVICE_SET_IRQS };
    unsigned long vm_requests[] = { KVM_SET_USER_MEMORY_REGION, KVM_IRQ_LINE, KVM_IRQFD, KVM_IOEVENTFD, KVM_CREATE_DEVICE,
                                    KVM_ARM_SET_DEVICE_ADDR, KVM_GET_DIRTY_LOG };

    NEED(ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &region));
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        for (unsigned j = 0; j < sizeof requests / sizeof *requests; j++)
            odd += ioctl(device, requests[j], bad[i]) != -1 || errno != EFAULT;
        for (unsigned j = 0; j < sizeof vm_requests / sizeof *vm_requests; j++)
            odd += ioctl(vm, vm_requests[j], bad[i]) != -1 || errno != EFAULT;
        odd += ioctl(container, VFIO_IOMMU_GET_INFO, bad[i]) != -1 || errno != EFAULT;
        odd += ioctl(container, VFIO_IOMMU_MAP_DMA, bad[i]) != -1 || errno != EFAULT;
        odd += ioctl(group, VFIO_GROUP_GET_DEVICE_FD, bad[i]) != -1 || errno != EFAULT;
        odd += pread(device, bad[i], 64, region.offset) != -1 || errno != EFAULT;
        odd += pwrite(device, bad[i], 4, region.offset + 0x3c) != -1 || errno != EFAULT;
    }
    printf("pointers %d\n", odd);

    SAY("dma", ioctl(container, VFIO_IOMMU_MAP_DMA, &(struct vfio_iommu_type1_dma_map){
                     sizeof(struct vfio_iommu_type1_dma_map), VFIO_DMA_MAP_FLAG_READ, (uintptr_t)end, 0, 4096 }));

    memcpy(end - sizeof arm.set, &arm, sizeof arm.set); /* the payload is missing */
    SAY("payload", ioctl(device, VFIO_DEVICE_SET_IRQS, end - sizeof arm.set));
    arm.set.argsz = 0xffffffff;
    SAY("argsz", ioctl(device, VFIO_DEVICE_SET_IRQS, &arm));
    arm.set.count = 0xffffffff;
    SAY("count", ioctl(device, VFIO_DEVICE_SET_IRQS, &arm));
    arm.set.start = 0xffffffff;
    SAY("start", ioctl(device, VFIO_DEVICE_SET_IRQS, &arm));
    arm.set.start = 0;
    arm.set.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER;
    SAY("count-none", ioctl(device, VFIO_DEVICE_SET_IRQS, &arm));
    arm.set.flags = VFIO_IRQ_SET_DATA_BOOL | VFIO_IRQ_SET_ACTION_TRIGGER;
    SAY("count-bool", ioctl(device, VFIO_DEVICE_SET_IRQS, &arm));
    struct vfio_device_info info = { .argsz = 0xffffffff };
    SAY("info-argsz", ioctl(device, VFIO_DEVICE_GET_INFO, &info));
    struct kvm_irq_routing routing = { .nr = 0xffffffff };
    SAY("routing", ioctl(vm, KVM_SET_GSI_ROUTING, &routing));
    struct kvm_userspace_memory_region slot = { 0, 0, 0, GIANT << 20, (uintptr_t)pages };
    SAY("slot", ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot));

    /* Configuration space is 256 bytes: behind them is EFAULT, whatever the buffer. */
    SAY("pread", pread(device, end - 256, GIANT, region.offset));
    SAY("pwrite", pwrite(device, end - 256, GIANT, region.offset));
    SAY("pread-behind", pread(device, pages, GIANT, region.offset + (1 << 20)));
    SAY("pread-negative", pread(device, pages, 4, -4));
    SAY("pread-endless", pread(device, pages, endless, region.offset));
    SAY("well", ioctl(device, VFIO_DEVICE_GET_INFO, &(struct vfio_device_info){ .argsz = sizeof info }));
    return 0;
}
