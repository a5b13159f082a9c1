/* Descriptors that travel: dup, fork, exec, SCM_RIGHTS; the virtual machine lives as long as anybody has one. */
#include "client.h"

static void pass(int over, int fd)
{
    char byte = 0, space[CMSG_SPACE(sizeof fd)] = { 0 };
    struct iovec data = { &byte, 1 };
    struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space };
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);

    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    NEED(sendmsg(over, &message, 0));
}

static int take(int from)
{
    int fd;
    char byte, space[CMSG_SPACE(sizeof fd)];
    struct iovec data = { &byte, 1 };
    struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space };

    NEED(recvmsg(from, &message, 0));
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    return fd;
}

int main(int argc, char **argv)
{
    int pair[2], status, copy;

    if (argc > 1) { /* after exec: the inherited descriptor is still a /dev/kvm */
        SAY("exec", ioctl(atoi(argv[1]), KVM_GET_API_VERSION, 0));
        return 0;
    }
    int group = (int)NEED(open("/dev/vfio/5", O_RDWR | O_CLOEXEC));
    SAY("busy", open("/dev/vfio/5", O_RDWR));
    copy = dup(group);
    close(group);
    SAY("busy-dup", open("/dev/vfio/5", O_RDWR));
    close(copy);
    SAY("free", group = open("/dev/vfio/5", O_RDWR | O_CLOEXEC) < 0 ? -1 : 0);

    NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    fflush(stdout);
    if (!fork()) {
        int kvm = (int)NEED(open("/dev/kvm", O_RDWR | O_CLOEXEC));
        pass(pair[1], kvm);
        _exit(0);
    }
    int kvm = take(pair[0]);
    wait(&status);
    SAY("passed", ioctl(kvm, KVM_GET_API_VERSION, 0));

    int vm = (int)NEED(ioctl(kvm, KVM_CREATE_VM, 0));
    fflush(stdout);
    if (!fork()) { /* another address space */
        SAY("other-mm", ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_IRQFD));
        SAY("other-mm-kvm", ioctl(kvm, KVM_GET_API_VERSION, 0));
        exit(0);
    }
    wait(&status);
    fcntl(kvm, F_SETFD, 0);
    char number[16];
    snprintf(number, sizeof number, "%d", kvm);
    fflush(stdout);
    execl(argv[0], argv[0], number, NULL);
    return 1;
}
