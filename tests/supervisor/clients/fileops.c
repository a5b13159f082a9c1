/* What descriptors of each kind say to file operations that are no ioctl of theirs, one line each: "kind-operation answer". */
#include "client.h"
#include <linux/falloc.h>
#include <poll.h>
#include <sys/uio.h>

static const char *kind;
#define ASK(operation, call) do { char label_[64]; snprintf(label_, sizeof label_, "%s-%s", kind, operation); SAY(label_, call); } while (0)

static long map(int fd, int flags)
{
    void *place = mmap(NULL, 4096, PROT_READ, flags, fd, 0);

    return place == MAP_FAILED ? -1 : munmap(place, 4096);
}

static long polled(int fd)
{
    struct pollfd one = { fd, POLLIN | POLLOUT, 0 };

    return poll(&one, 1, 0) == 1 ? one.revents : -1;
}

static void ask(const char *name, int fd)
{
    char byte = 0;
    struct iovec part = { &byte, 1 };

    kind = name;
    ASK("read", read(fd, &byte, 1));
    ASK("write", write(fd, &byte, 1));
    ASK("readv", readv(fd, &part, 1));
    ASK("seek", lseek(fd, 0, SEEK_SET));
    ASK("seek-by", lseek(fd, 7, SEEK_CUR));
    ASK("seek-odd", lseek(fd, 0, 9));
    ASK("read-after", read(fd, &byte, 1));
    ASK("write-after", write(fd, &byte, 1));
    ASK("pread", pread(fd, &byte, 1, 0));
    ASK("map", map(fd, MAP_SHARED));
    ASK("map-private", map(fd, MAP_PRIVATE));
    ASK("poll", polled(fd));
    ASK("truncate", ftruncate(fd, 4096));
    ASK("allocate", fallocate(fd, 0, 0, 4096));
    ASK("foreign", ioctl(fd, _IO('x', 1), 0));
    ASK("flags", fcntl(fd, F_GETFL));
}

int main(void)
{
    int kvm = (int)NEED(open("/dev/kvm", O_RDWR)), vm = (int)NEED(ioctl(kvm, KVM_CREATE_VM, 0));
    int container = (int)NEED(open("/dev/vfio/vfio", O_RDWR)), group = (int)NEED(open("/dev/vfio/5", O_RDWR));
    struct kvm_create_device create = { .type = KVM_DEV_TYPE_VFIO };
    char own[] = "/tmp/kvmvfio-emu-XXXXXX";
    int file = (int)NEED(mkstemp(own));

    NEED(ioctl(vm, KVM_CREATE_DEVICE, &create));
    ask("kvm", kvm);
    ask("vm", vm);
    ask("vcpu", (int)NEED(ioctl(vm, KVM_CREATE_VCPU, 0)));
    ask("kvmdev", (int)create.fd);
    ask("container", container);
    NEED(ioctl(group, VFIO_GROUP_SET_CONTAINER, &container));
    NEED(ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1_IOMMU));
    ask("group", group);
    ask("device", (int)NEED(ioctl(group, VFIO_GROUP_GET_DEVICE_FD, "fff51000.ethernet")));
    kind = "readonly";
    int readonly = (int)NEED(open("/dev/kvm", O_RDONLY | O_NONBLOCK));
    ASK("flags", fcntl(readonly, F_GETFL));
    ASK("write", write(readonly, own, 1));
    ASK("api", ioctl(readonly, KVM_GET_API_VERSION, 0));
    NEED(close(readonly));
    /* A file of the host's is not touched by any of it. */
    unlink(own);
    kind = "host";
    ASK("write", write(file, own, 8));
    ASK("seek", lseek(file, 4, SEEK_SET));
    ASK("tell", lseek(file, 0, SEEK_CUR));
    ASK("read", read(file, own, 8));
    ASK("truncate", ftruncate(file, 4096));
    ASK("map", map(file, MAP_SHARED));
    ASK("foreign", ioctl(file, _IO('x', 1), 0));
    ASK("flags", fcntl(file, F_GETFL));
    return 0;
}
