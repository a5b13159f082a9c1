/* A device found by sysfs and used without a group: its own node, an iommufd, DMA through an address space. */
#include "client.h"
#include <dirent.h>
#include <linux/iommufd.h>

#define DEVICE "/sys/bus/pci/devices/0000:00:01.0"

/* The name of the node, vfioN. */
static void find_node(char *name)
{
    DIR *directory = opendir(DEVICE "/vfio-dev");
    struct dirent *entry;

    name[0] = 0;
    while (directory && (entry = readdir(directory)))
        if (!strncmp(entry->d_name, "vfio", 4))
            strcpy(name, entry->d_name);
    if (directory)
        closedir(directory);
}

static void poke(int device, uint64_t at, uint64_t value, size_t size)
{
    NEED(pwrite(device, &value, size, (off_t)at));
}

int main(void)
{
    char name[300], path[400], dev[32] = "", *memory = aligned_alloc(4096, 4096);
    struct stat status;
    uint64_t config = 7ull << 40;
    uint16_t command = 6;

    find_node(name);
    snprintf(path, sizeof path, DEVICE "/vfio-dev/%s/dev", name);
    FILE *file = fopen(path, "r");
    if (file) {
        if (!fgets(dev, sizeof dev, file))
            dev[0] = 0;
        fclose(file);
    }
    snprintf(path, sizeof path, "/dev/vfio/devices/%s", name);
    SAY("stat", stat(path, &status));
    printf("dev %d\n", S_ISCHR(status.st_mode) && (unsigned)atoi(dev) == (unsigned)(status.st_rdev >> 8 & 0xfff));

    int device = (int)NEED(open(path, O_RDWR | O_CLOEXEC)), iommu = open("/dev/iommu", O_RDWR | O_CLOEXEC);
    NEED(iommu);
    struct vfio_device_info info = { .argsz = 16 };
    SAY("unbound", ioctl(device, VFIO_DEVICE_GET_INFO, &info));
    struct vfio_device_bind_iommufd bind = { .argsz = 16, .iommufd = iommu };
    SAY("bind", ioctl(device, VFIO_DEVICE_BIND_IOMMUFD, &bind));
    SAY("info", ioctl(device, VFIO_DEVICE_GET_INFO, &info));
    struct iommu_ioas_alloc alloc = { .size = sizeof alloc };
    SAY("alloc", ioctl(iommu, IOMMU_IOAS_ALLOC, &alloc));
    struct vfio_device_attach_iommufd_pt attach = { .argsz = 12, .pt_id = alloc.out_ioas_id };
    SAY("attach", ioctl(device, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach));
    strcpy(memory, "over the bus and back");
    struct iommu_ioas_map map = { .size = sizeof map,
                                  .flags = IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE,
                                  .ioas_id = alloc.out_ioas_id,
                                  .user_va = (uintptr_t)memory,
                                  .length = 4096 };
    SAY("map", ioctl(iommu, IOMMU_IOAS_MAP, &map));

    /* edu copies 32 bytes into its buffer, and from there to the middle of the page. */
    NEED(pwrite(device, &command, 2, (off_t)(config + 4)));
    poke(device, 0x80, map.iova, 8);
    poke(device, 0x88, 0x40000, 8);
    poke(device, 0x90, 32, 8);
    poke(device, 0x98, 1, 8);
    poke(device, 0x80, 0x40000, 8);
    poke(device, 0x88, map.iova + 0x800, 8);
    poke(device, 0x98, 3, 8);
    printf("dma %s\n", memory + 0x800);
    SAY("group", open("/dev/vfio/0", O_RDWR));
    struct iommu_destroy destroy = { .size = sizeof destroy, .id = alloc.out_ioas_id };
    SAY("busy", ioctl(iommu, IOMMU_DESTROY, &destroy));
    close(device);
    SAY("destroy", ioctl(iommu, IOMMU_DESTROY, &destroy));
    printf("group-again %d\n", open("/dev/vfio/0", O_RDWR) >= 0);
    return 0;
}
