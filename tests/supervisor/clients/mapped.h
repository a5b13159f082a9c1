/* The registers of the recording device, mapped. */
#include "client.h"

#define MARK 0xff0
#define COUNTED 0xfd0
#define COUNT 0xfd8
#define QUIET 0xfc0

static int device;
static volatile uint8_t *regs;

#define R8(at) (*(volatile uint8_t *)(regs + (at)))
#define R16(at) (*(volatile uint16_t *)(regs + (at)))
#define R32(at) (*(volatile uint32_t *)(regs + (at)))
#define R64(at) (*(volatile uint64_t *)(regs + (at)))

static volatile uint8_t *map_again(void)
{
    void *place = mmap(NULL, 0x2000, PROT_READ | PROT_WRITE, MAP_SHARED, device, 0);

    need(place == MAP_FAILED ? -1 : 0, "mmap of the registers");
    return place;
}

static inline void map_registers(void)
{
    int container = (int)NEED(open("/dev/vfio/vfio", O_RDWR)), group = (int)NEED(open("/dev/vfio/7", O_RDWR));

    NEED(ioctl(group, VFIO_GROUP_SET_CONTAINER, &container));
    NEED(ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1_IOMMU));
    device = (int)NEED(ioctl(group, VFIO_GROUP_GET_DEVICE_FD, "recorder"));
    regs = map_again();
}
