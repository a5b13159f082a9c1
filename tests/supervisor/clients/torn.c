/* One thread's arguments are unmapped, and its descriptors closed, by another: EFAULT, EBADF or success, never a hang. */
#include "client.h"

static int vm;
static char *page;
static volatile int stop;

static void *vandal(void *unused)
{
    (void)unused;
    while (!stop) {
        munmap(page, 4096);
        mmap(page, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        close(dup(vm));
    }
    return NULL;
}

int main(void)
{
    pthread_t other;
    int odd = 0;

    vm = new_vm();
    page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pthread_create(&other, NULL, vandal, NULL);
    for (int i = 0; i < 3000; i++) {
        long result = ioctl(vm, KVM_GET_DIRTY_LOG, page);
        if (result >= 0 || (errno != EFAULT && errno != ENOENT))
            odd++;
    }
    stop = 1;
    pthread_join(other, NULL);
    printf("odd %d\n", odd);
    return 0;
}
