/* A guest in machine code at address 0 whose memory is this program's: private, or shared by a file.
 *
 * -DGUEST32: a 32-bit one.
 */
#include "client.h"
#include <time.h>

enum { PAGES = 4, EXITS = 20 };
#ifdef GUEST32
enum { FEATURES = 1 << KVM_ARM_VCPU_EL1_32BIT };
static const uint32_t increment[] = {
    0xE3A0940A, /* mov r9, #0x0a000000 */
    0xE3A00A01, /* mov r0, #0x1000 */
    0xE5901000, /* ldr r1, [r0] */
    0xE2811001, /* add r1, r1, #1 */
    0xE5801000, /* str r1, [r0] */
    0xE5891000, /* str r1, [r9]: an exit */
    0xEAFFFFFA, /* b .-16 */
};
static const uint32_t poll_word[] = {
    0xE3A0940A, 0xE3A00A01,
    0xE5901000, /* ldr r1, [r0] */
    0xE3510000, /* cmp r1, #0 */
    0x0AFFFFFC, /* beq .-8 */
    0xE5891000, 0xEAFFFFFE,
};
static const uint32_t touch[] = {
    0xE3A00A02, /* mov r0, #0x2000 */
    0xE5901000, 0xEAFFFFFE,
};
static const uint32_t endless[] = { 0xEAFFFFFE };
static const uint32_t to_itself[] = {
    0xE3A0940A, /* mov r9, #0x0a000000 */
    0xE3A00B01, /* mov r0, #0x400 */
    0xEE0C0F10, /* mcr VBAR */
    0xE3A000FF, /* mov r0, #0xff */
    0xEE040F16, /* mcr ICC_PMR */
    0xE3A00001, /* mov r0, #1 */
    0xEE0C0FFC, /* mcr ICC_IGRPEN1 */
    0xF1080080, /* cpsie i */
    0xE3800403, /* orr r0, r0, #3 << 24 */
    0xE3A02000, /* mov r2, #0 */
    0xEC420F0C, /* mcrr ICC_SGI1R: interrupt 3 to itself */
    0xE320F003, /* wfi */
    0xEAFFFFFD, /* b .-4 */
};
static const uint32_t at_irq[] = { /* at VBAR + 0x18 */
    0xEE1C0F1C, /* mrc ICC_IAR1 */
    0xE5890000, /* str r0, [r9]: an exit */
    0xEE0C0F3C, /* mcr ICC_EOIR1 */
    0xEE1C0F7B, /* mrc ICC_RPR */
    0xE5890000, /* str r0, [r9]: an exit */
    0xE25EF004, /* subs pc, lr, #4 */
};

static void set_attr(int device, uint32_t group, uint64_t attr, uint64_t value)
{
    struct kvm_device_attr request = { .group = group, .attr = attr, .addr = (uintptr_t)&value };
    NEED(ioctl(device, KVM_SET_DEVICE_ATTR, &request));
}

/* A VGICv3 whose private interrupts are enabled, in group 1. */
static void add_vgicv3(int vm)
{
    struct kvm_create_device create = { .type = KVM_DEV_TYPE_ARM_VGIC_V3 };
    NEED(ioctl(vm, KVM_CREATE_DEVICE, &create));
    set_attr((int)create.fd, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_DIST, 0x08000000);
    set_attr((int)create.fd, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_REDIST, 0x080A0000);
    set_attr((int)create.fd, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT, 0);
    set_attr((int)create.fd, KVM_DEV_ARM_VGIC_GRP_DIST_REGS, 0, 2);
    set_attr((int)create.fd, KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, 0x10080, 0xFFFFFFFF);
    set_attr((int)create.fd, KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, 0x10100, 0xFFFF);
}
#else
enum { FEATURES = 0 };
static const uint32_t increment[] = {
    0xD2A14009, /* movz x9, #0x0a00, lsl #16 */
    0xD2820000, /* movz x0, #0x1000 */
    0xB9400001, /* ldr w1, [x0] */
    0x11000421, /* add w1, w1, #1 */
    0xB9000001, /* str w1, [x0] */
    0xB9000121, /* str w1, [x9]: an exit */
    0x17FFFFFC, /* b .-16 */
};
static const uint32_t poll_word[] = {
    0xD2A14009, 0xD2820000,
    0xB9400001, /* ldr w1, [x0] */
    0x34FFFFE1, /* cbz w1, .-4 */
    0xB9000121, 0x14000000,
};
static const uint32_t touch[] = {
    0xD2840000, /* movz x0, #0x2000 */
    0xB9400001, 0x14000000,
};
static const uint32_t endless[] = { 0x14000000 };
#endif

static uint32_t *word;

static void on_signal(int number) { (void)number; }

static void *write_later(void *unused)
{
    usleep(20000);
    __atomic_store_n(word, 7, __ATOMIC_SEQ_CST);
    return unused;
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "", *kind = argc > 2 ? argv[2] : "";
    int flags = MAP_PRIVATE | MAP_ANONYMOUS, file = -1, vm = new_vm(), vcpu = new_vcpu_with(vm, FEATURES);
    struct kvm_run *run = run_page(vcpu);
    char *ram;

    if (!strcmp(kind, "file")) {
        file = (int)NEED(memfd_create("ram", MFD_CLOEXEC));
        NEED(ftruncate(file, PAGES * 4096));
        flags = MAP_SHARED;
    }
    ram = mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, flags, file, 0);
    word = (uint32_t *)(ram + 0x1000);
    struct kvm_userspace_memory_region region = { .memory_size = PAGES * 4096, .userspace_addr = (uintptr_t)ram };
    NEED(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region));

    if (!strcmp(mode, "increment")) {
        int right = 0;
        memcpy(ram, increment, sizeof increment);
        for (uint32_t i = 0; i < EXITS; i++) {
            *word = 1000 * i;
            NEED(ioctl(vcpu, KVM_RUN, 0));
            right += run->exit_reason == KVM_EXIT_MMIO && *word == 1000 * i + 1 && !memcmp(run->mmio.data, word, 4);
        }
        printf("right %d\n", right);
    } else if (!strcmp(mode, "exits")) { /* how long so many take: for the benchmark */
        struct timespec start, end;
        long many = argc > 3 ? atol(argv[3]) : 1000;
        memcpy(ram, increment, sizeof increment);
        NEED(ioctl(vcpu, KVM_RUN, 0));
        clock_gettime(CLOCK_MONOTONIC, &start);
        for (long i = 0; i < many; i++)
            NEED(ioctl(vcpu, KVM_RUN, 0));
        clock_gettime(CLOCK_MONOTONIC, &end);
        printf("ns %ld\n", ((end.tv_sec - start.tv_sec) * 1000000000L + end.tv_nsec - start.tv_nsec) / many);
    } else if (!strcmp(mode, "poll")) {
        pthread_t thread;
        memcpy(ram, poll_word, sizeof poll_word);
        pthread_create(&thread, NULL, write_later, NULL);
        SAY("run", ioctl(vcpu, KVM_RUN, 0));
        printf("value %d\n", run->mmio.data[0]);
        pthread_join(thread, NULL);
    } else if (!strcmp(mode, "fault")) {
        memcpy(ram, touch, sizeof touch);
        NEED(munmap(ram + 0x2000, 4096));
        SAY("run", ioctl(vcpu, KVM_RUN, 0));
        NEED(mmap(ram + 0x2000, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED ? -1 : 0);
        run->immediate_exit = 0;
        struct itimerval soon = { .it_value.tv_usec = 20000 };
        struct sigaction action = { .sa_handler = on_signal };
        sigaction(SIGALRM, &action, NULL);
        setitimer(ITIMER_REAL, &soon, NULL);
        SAY("again", ioctl(vcpu, KVM_RUN, 0)); /* it goes on, and computes until the signal */
#ifdef GUEST32
    } else if (!strcmp(mode, "gicv3")) {
        memcpy(ram, to_itself, sizeof to_itself);
        memcpy(ram + 0x418, at_irq, sizeof at_irq);
        add_vgicv3(vm);
        NEED(ioctl(vcpu, KVM_RUN, 0));
        printf("acknowledged %u\n", run->mmio.data[0]);
        NEED(ioctl(vcpu, KVM_RUN, 0));
        printf("priority %u\n", run->mmio.data[0]);
#endif
    } else {
        struct itimerval soon = { .it_value.tv_usec = 20000 };
        struct sigaction action = { .sa_handler = on_signal };
        memcpy(ram, endless, sizeof endless);
        sigaction(SIGALRM, &action, NULL);
        setitimer(ITIMER_REAL, &soon, NULL);
        SAY("run", ioctl(vcpu, KVM_RUN, 0));
        printf("reason %u\n", run->exit_reason);
    }
    return 0;
}
