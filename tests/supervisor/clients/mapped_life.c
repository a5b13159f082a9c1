/* Mapped registers while a program does what programs do: argv[1] says what. "label value" lines. */
#include "mapped.h"
#include <sched.h>
#include <setjmp.h>
#include <sys/time.h>

#define TURNS 200

#define TELL(label, value) printf(label " %ld\n", (long)(value))

/* A pulse by plain moves, and one by an instruction that has to be executed. */
static void pulse(void)
{
    R32(COUNTED) = 1;
    R32(COUNTED) = 0;
}

static void odd_pulse(void)
{
#ifdef __x86_64__
    uint64_t ones = 1;

    asm volatile("movq %1, %%xmm0; movq %%xmm0, %0" : "=m"(*(uint64_t *)(uintptr_t)(regs + COUNTED)) : "r"(ones) : "xmm0");
    __atomic_fetch_add((uint32_t *)(uintptr_t)(regs + 0x200), 1, __ATOMIC_SEQ_CST);
#else
    R32(COUNTED) = 1;
    R32(0x200) += 1;
#endif
}

static void *hammer(void *odd)
{
    for (int turn = 0; turn < TURNS; turn++)
        odd ? odd_pulse() : pulse();
    return NULL;
}

static void threads(void)
{
    pthread_t all[4], brief;

    R32(0x200) = 0;
    for (long i = 0; i < 4; i++)
        pthread_create(&all[i], NULL, hammer, (void *)(i & 1));
    for (int i = 0; i < 20; i++) { /* threads that come and go meanwhile */
        pthread_create(&brief, NULL, hammer, NULL);
        pthread_join(brief, NULL);
    }
    for (int i = 0; i < 4; i++)
        pthread_join(all[i], NULL);
    TELL("pulses", R32(COUNT));
    TELL("added", R32(0x200));
}

static int waited(pid_t child)
{
    int status;

    NEED(waitpid(child, &status, 0));
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void children(char *self)
{
    pid_t child = fork();

    if (!child) {
        hammer(NULL);
        hammer(self);
        _exit(R32(COUNT) > 0 ? 3 : 4);
    }
    hammer(self);
    TELL("forked", waited(child));
    child = vfork();
    if (!child) {
        R32(COUNTED) = 1;
        execl("/bin/true", "true", (char *)NULL);
        _exit(1);
    }
    TELL("vforked", waited(child));
    child = fork();
    if (!child) { /* our mapping dies in the exec, the descriptor does not */
        char number[12];

        snprintf(number, sizeof number, "%d", dup(device));
        execl(self, self, "again", number, (char *)NULL);
        _exit(1);
    }
    TELL("again", waited(child));
    TELL("pulses", R32(COUNT));
}

static int again(const char *number)
{
    device = atoi(number);
    regs = map_again();
    pulse();
    return 5;
}

static volatile sig_atomic_t rings, dealt;

static void ring(int number)
{
    rings++;
    if (dealt++ < 50)
        R32(COUNTED) = (uint32_t)number;
}

static void signals(void)
{
    struct itimerval often = { { 0, 300 }, { 0, 300 } }, never = { { 0, 0 }, { 0, 0 } };
    sigset_t set;
    uint32_t kept = 1;

    signal(SIGALRM, ring);
    R32(0x200) = 0;
    setitimer(ITIMER_REAL, &often, NULL);
    for (int turn = 0; turn < TURNS; turn++) {
        R32(0x204) = (uint32_t)turn;
        kept &= R32(0x204) == (uint32_t)turn;
        odd_pulse();
    }
    setitimer(ITIMER_REAL, &never, NULL);
    sigprocmask(SIG_SETMASK, NULL, &set);
    TELL("rang", rings > 0);
    TELL("kept", kept);
    TELL("added", R32(0x200));
    TELL("pulses", R32(COUNT) - (dealt < 50 ? dealt : 50));
    TELL("blocked", sigismember(&set, SIGALRM) + sigismember(&set, SIGUSR1));
}

static sigjmp_buf back;

static void caught(int number)
{
    siglongjmp(back, number);
}

static void faults(void)
{
    char name[] = "/tmp/kvmvfio-emu-XXXXXX", *hole;
    int file = (int)NEED(mkstemp(name)), got;
    volatile uint8_t *once = map_again();

    unlink(name);
    hole = mmap(NULL, 4096, PROT_READ, MAP_SHARED, file, 0);
    signal(SIGBUS, caught);
    signal(SIGSEGV, caught);
    got = sigsetjmp(back, 1);
    TELL("hole", got ? got : *(volatile char *)hole); /* behind the end of a file of its own */
    munmap((void *)(once + 0x1000), 0x1000);
    got = sigsetjmp(back, 1);
    TELL("border", got ? got : *(volatile uint16_t *)(once + 0xfff));
    TELL("below", *(volatile uint8_t *)(once + 0x14));
    NEED(mprotect((void *)once, 0x1000, PROT_READ));
    got = sigsetjmp(back, 1);
    TELL("readonly", got ? got : (*once = 1));
#ifdef __x86_64__
    got = sigsetjmp(back, 1);
    if (!got) {
        void *from = (void *)(regs + 0x10), *nowhere = (void *)16;
        asm volatile("movsb" : "+S"(from), "+D"(nowhere) :: "memory");
    }
    TELL("nowhere", got);
#else
    TELL("nowhere", SIGSEGV);
#endif
    munmap((void *)once, 0x1000);
    got = sigsetjmp(back, 1);
    TELL("unmapped", got ? got : *once);
}

static void stops(void)
{
    pid_t child = fork();
    int status, seen = 0;

    if (!child)
        for (;;)
            odd_pulse();
    for (int turn = 0; turn < 20; turn++) {
        NEED(kill(child, SIGSTOP));
        NEED(waitpid(child, &status, WUNTRACED));
        uint32_t before = R32(COUNT);
        sched_yield();
        seen += WIFSTOPPED(status) && R32(COUNT) == before;
        NEED(kill(child, SIGCONT));
        while (R32(COUNT) == before)
            ;
    }
    kill(child, SIGKILL);
    TELL("stopped", seen);
    TELL("killed", waited(child));
}

int main(int argc, char **argv)
{
    if (argc > 2)
        return again(argv[2]);
    map_registers();
    R32(QUIET) = 1;
    if (!strcmp(argv[1], "threads"))
        threads();
    else if (!strcmp(argv[1], "children"))
        children(argv[0]);
    else if (!strcmp(argv[1], "signals"))
        signals();
    else if (!strcmp(argv[1], "faults"))
        faults();
    else if (!strcmp(argv[1], "stops"))
        stops();
    else if (!strcmp(argv[1], "forever"))
        for (;;)
            hammer(R32(0x200) & 1 ? argv[1] : NULL);
    else if (!strcmp(argv[1], "copy")) { /* without us, or with a copy instead */
        uint32_t value = 0;

        R32(0x300) = 0x600d;
        TELL("length", pread(device, &value, 4, 0x300));
        TELL("stored", value);
    }
    return 0;
}
