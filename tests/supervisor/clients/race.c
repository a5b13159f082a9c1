/*
 * Four threads that use descriptors which a fifth closes under them, and arguments that a sixth unmaps: every call answers
 * something that it may answer, and in the end all is as before.
 */
#include "client.h"

enum { TIMES = 1500, THREADS = 4 };

static volatile int stop, shared = -1, odd;
static char *page;

static int in(int error, const int *allowed)
{
    for (; *allowed; allowed++)
        if (error == *allowed)
            return 1;
    return 0;
}

static void check(const char *what, long result, const int *allowed)
{
    if (result < 0 && !in(errno, allowed)) {
        fprintf(stderr, "%s: %s\n", what, strerrorname_np(errno));
        __atomic_add_fetch(&odd, 1, __ATOMIC_RELAXED);
    }
}

static void *user(void *unused)
{
    (void)unused;
    for (int i = 0; i < TIMES; i++) {
        int fd = shared; /* a virtual machine, closed, or by now something else */
        struct kvm_create_device create = { .type = KVM_DEV_TYPE_VFIO };

        check("check", ioctl(fd, KVM_CHECK_EXTENSION, KVM_CAP_IRQFD), (int[]){ EBADF, ENOTTY, EINVAL, EFAULT, 0 });
        check("torn", ioctl(fd, KVM_IRQ_LINE, page), (int[]){ EBADF, EFAULT, EINVAL, ENXIO, ENOTTY, 0 });
        if (ioctl(fd, KVM_CREATE_DEVICE, &create) >= 0)
            close((int)create.fd);
    }
    return NULL;
}

static void *closer(void *unused)
{
    (void)unused;
    while (!stop) {
        int fd = new_vm();
        shared = fd;
        sched_yield();
        close(fd);
    }
    return NULL;
}

static void *unmapper(void *unused)
{
    (void)unused;
    while (!stop) {
        munmap(page, 4096);
        mmap(page, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        usleep(50);
    }
    return NULL;
}

int main(void)
{
    pthread_t users[THREADS], others[2];

    page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pthread_create(&others[0], NULL, closer, NULL);
    pthread_create(&others[1], NULL, unmapper, NULL);
    for (int i = 0; i < THREADS; i++)
        pthread_create(&users[i], NULL, user, NULL);
    for (int i = 0; i < THREADS; i++)
        pthread_join(users[i], NULL);
    stop = 1;
    pthread_join(others[0], NULL);
    pthread_join(others[1], NULL);
    printf("odd %d\n", odd);
    return 0;
}
