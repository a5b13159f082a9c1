/* Plays programs of tests/programs/model.py from standard input, and answers as tests/programs/play.py does. */
#include "client.h"
#include <stddef.h>

enum { BACKING = 0x10000, PAGE = 4096, VCPUS = 2, SLOTS = 8, LINE = 1 << 17, REGISTERS = 1024, MICROSECONDS = 30000, FIRST = 300000 };
static const uint64_t END = 0x0A000FF8;
#define CORE(field) (KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE | KVM_REG_ARM_CORE_REG(field))
#define SYSTEM(op0, op1, crn, crm, op2) ARM64_SYS_REG(op0, op1, crn, crm, op2)

static int vm, kvm_vgic, vcpus[VCPUS], started[VCPUS], count, late_before, over;
static struct kvm_run *runs[VCPUS];
static volatile int running;
static char *backing;
static struct { uint64_t gpa, size, offset; } slots[SLOTS];
static char line[LINE];

static void on_alarm(int number) { (void)number; runs[running]->immediate_exit = 1; }

static void timer(int microseconds)
{
    struct timeval time = { .tv_usec = microseconds };
    struct itimerval both = { time, time };
    setitimer(ITIMER_REAL, &both, NULL);
}

static long result; /* of the last `call` */
static const char *error;
static void call(int fd, unsigned long request, void *argument)
{
    errno = 0;
    result = ioctl(fd, request, argument);
    error = result < 0 ? strerrorname_np(errno) : "0";
}

static void set_attribute(uint32_t group, uint64_t attribute, uint64_t value)
{
    struct kvm_device_attr attr = { .group = group, .attr = attribute, .addr = (uintptr_t)&value };
    NEED(ioctl(kvm_vgic, KVM_SET_DEVICE_ATTR, &attr));
}

static void new_machine(int width, int number, int gic, int nisv)
{
    struct kvm_vcpu_init init;
    struct kvm_enable_cap cap = { .cap = KVM_CAP_ARM_NISV_TO_USER };
    struct kvm_create_device device = { .type = gic == 2 ? KVM_DEV_TYPE_ARM_VGIC_V2 : KVM_DEV_TYPE_ARM_VGIC_V3 };
    vm = new_vm();
    count = number;
    late_before = over = 0;
    memset(slots, 0, sizeof slots);
    memset(started, 0, sizeof started);
    if (nisv)
        NEED(ioctl(vm, KVM_ENABLE_CAP, &cap));
    for (int i = 0; i < count; i++)
        vcpus[i] = (int)NEED(ioctl(vm, KVM_CREATE_VCPU, i));
    NEED(ioctl(vm, KVM_ARM_PREFERRED_TARGET, &init));
    init.features[0] = 1 << KVM_ARM_VCPU_PSCI_0_2 | (width == 32) << KVM_ARM_VCPU_EL1_32BIT;
    for (int i = 0; i < count; i++) {
        NEED(ioctl(vcpus[i], KVM_ARM_VCPU_INIT, &init));
        runs[i] = run_page(vcpus[i]);
    }
    NEED(ioctl(vm, KVM_CREATE_DEVICE, &device));
    kvm_vgic = (int)device.fd;
    set_attribute(KVM_DEV_ARM_VGIC_GRP_ADDR, gic == 2 ? KVM_VGIC_V2_ADDR_TYPE_DIST : KVM_VGIC_V3_ADDR_TYPE_DIST, 0x08000000);
    if (gic == 2)
        set_attribute(KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V2_ADDR_TYPE_CPU, 0x08010000);
    else
        set_attribute(KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_REDIST, 0x080A0000);
    set_attribute(KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT, 0);
    memset(backing, 0, BACKING);
}

static void old_machine(void)
{
    for (int i = 0; i < count; i++) {
        munmap(runs[i], 8192);
        close(vcpus[i]);
    }
    close(kvm_vgic);
    close(vm);
}

static uint64_t get(int vcpu, uint64_t number)
{
    uint64_t value = 0;
    struct kvm_one_reg one = { .id = number, .addr = (uintptr_t)&value };
    NEED(ioctl(vcpus[vcpu], KVM_GET_ONE_REG, &one));
    return value;
}

static void set(int vcpu, uint64_t number, uint64_t value)
{
    struct kvm_one_reg one = { .id = number, .addr = (uintptr_t)&value };
    call(vcpus[vcpu], KVM_SET_ONE_REG, &one);
}

/* The four bytes at a guest physical address; all ones where there are none. */
static uint32_t instruction(uint64_t pc)
{
    uint32_t word = 0xFFFFFFFF;
    for (int i = 0; i < SLOTS; i++) {
        uint64_t at = slots[i].offset + pc - slots[i].gpa;
        if (slots[i].gpa <= pc && pc + 4 > pc && pc + 4 <= slots[i].gpa + slots[i].size && at + 4 <= BACKING)
            memcpy(&word, backing + at, 4);
    }
    return word;
}

static void show(int vcpu)
{
    uint64_t pc = get(vcpu, CORE(regs.pc));
    printf("%lx %x %lx %lx", pc, instruction(pc), get(vcpu, CORE(regs.pstate)), get(vcpu, SYSTEM(3, 0, 1, 0, 0)));
    for (int i = 0; i < 31; i++)
        printf(" %lx", get(vcpu, CORE(regs.regs[0]) + 2 * i));
    printf(" %lx %lx\n", get(vcpu, CORE(regs.sp)), get(vcpu, CORE(sp_el1)));
}

static void skip(int vcpu)
{
    uint64_t pc = get(vcpu, CORE(regs.pc));
    int thumb = (get(vcpu, CORE(regs.pstate)) & 0x30) == 0x30;
    set(vcpu, CORE(regs.pc), pc + (thumb && (instruction(pc) & 0xFFFF) >> 11 < 29 ? 2 : 4));
}

static void do_run(int vcpu, uint64_t answer)
{
    struct kvm_run *run = runs[vcpu];
    uint64_t a = 0, b = 0, c = 0, d = 0;
    running = vcpu;
    run->immediate_exit = 0;
    timer(started[vcpu] ? MICROSECONDS : FIRST); /* the first makes the engine */
    started[vcpu] = 1;
    call(vcpus[vcpu], KVM_RUN, 0);
    timer(0);
    if (!strcmp(error, "EINTR")) {
        over = late_before;
        late_before = 1;
        printf("run %d late ", vcpu);
        show(vcpu);
        return;
    }
    if (run->exit_reason == KVM_EXIT_MMIO) {
        a = run->mmio.phys_addr, b = run->mmio.len, c = run->mmio.is_write;
        memcpy(&d, run->mmio.data, 8);
    } else if (run->exit_reason == KVM_EXIT_ARM_NISV) {
        a = run->arm_nisv.fault_ipa, b = run->arm_nisv.esr_iss & 1 << 6; /* WnR */
    } else if (run->exit_reason == KVM_EXIT_SYSTEM_EVENT) {
        a = run->system_event.type, b = run->system_event.flags;
    }
    printf("run %d %ld %s %u %lx %lx %lx %lx ", vcpu, result, error, run->exit_reason, a, b, c, d);
    show(vcpu);
    if (!result && run->exit_reason == KVM_EXIT_MMIO) {
        over = run->mmio.is_write && a == END;
        if (!run->mmio.is_write)
            memcpy(run->mmio.data, &answer, 8);
    } else if (!strcmp(error, "ENOSYS") || (!result && run->exit_reason == KVM_EXIT_ARM_NISV)) {
        skip(vcpu);
    } else if (!result) {
        over = 1;
    }
}

static uint32_t checksum(const void *data, size_t size, uint32_t crc)
{
    const uint8_t *byte = data;
    crc = ~crc;
    for (; size--; byte++) {
        crc ^= *byte;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320 : 0);
    }
    return ~crc;
}

/* All registers that there are, but those that tell the time. */
static void every(int vcpu)
{
    static struct { uint64_t n, reg[REGISTERS]; } list;
    uint32_t digest = 0;
    list.n = REGISTERS;
    NEED(ioctl(vcpus[vcpu], KVM_GET_REG_LIST, &list));
    for (uint64_t at = 0; at < list.n; at++) {
        uint8_t raw[16] = { 0 };
        struct kvm_one_reg one = { .id = list.reg[at], .addr = (uintptr_t)raw };
        NEED(ioctl(vcpus[vcpu], KVM_GET_ONE_REG, &one));
        if (one.id != SYSTEM(3, 3, 14, 3, 2) && one.id != SYSTEM(3, 3, 14, 0, 1))
            digest = checksum(raw, sizeof raw, digest);
    }
    printf("every %08x\n", digest);
}

static void poke(char *rest)
{
    int offset, size = 0, times;
    char *hex = strchr(rest, ' ') + 1, *last = strchr(hex, ' ');
    offset = atoi(rest);
    times = atoi(last);
    for (; hex < last; hex += 2, size++)
        sscanf(hex, "%2hhx", (unsigned char *)&backing[offset + size]);
    for (int i = 1; i < times; i++)
        memcpy(backing + offset + i * size, backing + offset, (size_t)size);
    printf("poke\n");
}

static void step(void)
{
    char kind[16], *rest = strchr(line, ' ') + 1;
    uint64_t a, b, c, d, e = 0;
    sscanf(line, "%15s", kind);
    if (!strcmp(kind, "poke")) {
        poke(rest);
    } else if (!strcmp(kind, "slot")) {
        NEED(sscanf(rest, "%lu %lx %lx %lx %lu", &a, &b, &c, &d, &e) - 5);
        struct kvm_userspace_memory_region region = { a, e, b, c, (uintptr_t)backing + d };
        call(vm, KVM_SET_USER_MEMORY_REGION, &region);
        printf("slot %ld %s\n", result, error);
        if (!result)
            slots[a].gpa = b, slots[a].size = c, slots[a].offset = d;
    } else if (!strcmp(kind, "set")) {
        NEED(sscanf(rest, "%lu %lx %lx", &a, &b, &c) - 3);
        set((int)a, b, c);
        printf("set %ld %s\n", result, error);
    } else if (!strcmp(kind, "events")) {
        NEED(sscanf(rest, "%lu %lu %lu", &a, &b, &c) - 3);
        struct kvm_vcpu_events events = { .exception = { .serror_pending = b, .ext_dabt_pending = c } };
        call(vcpus[a], KVM_SET_VCPU_EVENTS, &events);
        printf("events %ld %s\n", result, error);
    } else if (!strcmp(kind, "line")) {
        NEED(sscanf(rest, "%lu %lu", &a, &b) - 2);
        struct kvm_irq_level level = { .irq = KVM_ARM_IRQ_TYPE_SPI << KVM_ARM_IRQ_TYPE_SHIFT | a, .level = b };
        call(vm, KVM_IRQ_LINE, &level);
        printf("line %ld %s\n", result, error);
    } else if (!strcmp(kind, "every")) {
        every(atoi(rest));
    } else if (!strcmp(kind, "complete")) {
        int vcpu = atoi(rest);
        runs[vcpu]->immediate_exit = 1;
        call(vcpus[vcpu], KVM_RUN, 0);
        runs[vcpu]->immediate_exit = 0;
        printf("complete %d %ld %s ", vcpu, result, error);
        show(vcpu);
    } else {
        NEED(sscanf(rest, "%lu %lx", &a, &b) - 2);
        do_run((int)a, b);
    }
}

int main(int argc, char **argv)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS, file = -1;
    if (argc > 1 && !strcmp(argv[1], "file")) {
        file = (int)NEED(memfd_create("ram", MFD_CLOEXEC));
        NEED(ftruncate(file, BACKING + PAGE));
        flags = MAP_SHARED;
    }
    backing = mmap(NULL, BACKING + PAGE, PROT_READ | PROT_WRITE, flags, file, 0);
    need(backing == MAP_FAILED ? -1 : 0, "mmap");
    NEED(mprotect(backing + BACKING, PAGE, PROT_NONE));
    sigaction(SIGALRM, &(struct sigaction){ .sa_handler = on_alarm }, NULL);
    while (fgets(line, sizeof line, stdin)) {
        int width, number, gic, nisv;
        if (sscanf(line, "new %d %d %d %d", &width, &number, &gic, &nisv) == 4) {
            new_machine(width, number, gic, nisv);
        } else if (!strcmp(line, "end\n")) {
            printf("memory %08x\nticked\n\n", checksum(backing, BACKING, 0));
            fflush(stdout);
            old_machine();
        } else if (!over) {
            step();
        }
    }
    return 0;
}
