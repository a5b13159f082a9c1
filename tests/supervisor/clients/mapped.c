/* One instruction of each kind on mapped registers: "label result"; a store to MARK stands before each in the log. */
#include "mapped.h"

static int marks;
/* Log mark, then the statement; prints its label and the value. */
#define DO(label, value) do { R32(MARK) = (uint32_t)marks++; uint64_t v_ = (uint64_t)(value); printf(label " %#lx\n", (unsigned long)v_); } while (0)
/* Two words, for vectors. */
typedef struct { uint64_t words[2]; } pair;
#define AT(type, at) (*(type *)(uintptr_t)(regs + (at)))

static void any_machine(void)
{
    uint8_t copy[48];

    DO("load8", R8(0x11));
    DO("load16", R16(0x12));
    DO("load32", R32(0x14));
    DO("load64", R64(0x18));
    DO("load-signed", (int64_t)*(volatile int8_t *)(regs + 0x80));
    DO("load-signed-to-32", (uint32_t)(int32_t)*(volatile int16_t *)(regs + 0x80));
    DO("store8", R8(0x21) = 0xa1);
    DO("store16", R16(0x22) = 0xb1b2);
    DO("store32", R32(0x24) = 0xc1c2c3c4);
    DO("store64", R64(0x28) = 0xd1d2d3d4d5d6d7d8);
    DO("store-zero", R32(0x24) = 0);
    DO("store-again", R32(0x24) = 0);
    DO("load-acquire", __atomic_load_n(&AT(uint32_t, 0x24), __ATOMIC_ACQUIRE));
    DO("copy", (memcpy(copy, (void *)(regs + 0x40), sizeof copy), copy[0] | copy[47] << 8));
    DO("fill", (memcpy((void *)(regs + 0x40), copy + 8, 16), R8(0x40)));
}

#ifdef __x86_64__
static void x86(void)
{
    uint64_t a = 0x1111111111111111, b = 0;
    uint32_t words[4] = { 0xa0a1a2a3, 0xb0b1b2b3, 0xc0c1c2c3, 0xd0d1d2d3 };
    uint8_t *here = (uint8_t *)regs;
    void *from, *to;
    unsigned long count;
    double real = 0;

    DO("keep-16", ({ asm volatile("movw %1, %w0" : "+r"(a) : "m"(AT(uint16_t, 0x14))); a; }));
    a = 0x2222222222222222;
    DO("high-byte", ({ asm volatile("movb %1, %%ah" : "+a"(a) : "m"(AT(uint8_t, 0x14))); a; }));
    DO("store-high-byte", ({ asm volatile("movb %%ah, %0" : "=m"(AT(uint8_t, 0x60)) : "a"(a)); 0; }));
    DO("constant-8", ({ asm volatile("movq $-2, %0" : "=m"(AT(uint64_t, 0x60))); 0; }));
    DO("indexed", ({ asm volatile("movl 0x10(%1,%2,4), %k0" : "=r"(a) : "r"(here), "r"(1L)); a; }));
    DO("or", ({ asm volatile("orl $0x100, %0" : "+m"(AT(uint32_t, 0x64))); 0; }));
    DO("or-nothing", ({ asm volatile("orb $0, %0" : "+m"(AT(uint8_t, 0x64))); 0; }));
    DO("increment", ({ asm volatile("incw %0" : "+m"(AT(uint16_t, 0x66))); 0; }));
    DO("exchange", ({ a = 5; asm volatile("xchgl %k0, %1" : "+r"(a), "+m"(AT(uint32_t, 0x68))); a; }));
    DO("add-exchange", __atomic_fetch_add(&AT(uint32_t, 0x68), 3, __ATOMIC_SEQ_CST));
    DO("compare-exchange-hit", __sync_val_compare_and_swap(&AT(uint32_t, 0x68), 8, 9));
    DO("compare-exchange-miss", __sync_val_compare_and_swap(&AT(uint32_t, 0x68), 8, 10));
    DO("compare", ({ uint8_t set; asm volatile("cmpl $9, %1; sete %0" : "=r"(set) : "m"(AT(uint32_t, 0x68))); set; }));
    DO("test", ({ uint8_t set; asm volatile("testb $8, %1; setne %0" : "=r"(set) : "m"(AT(uint8_t, 0x68))); set; }));
    DO("add", ({ a = 1; asm volatile("addq %1, %0" : "+r"(a) : "m"(AT(uint64_t, 0x10))); a; }));
    DO("push", ({ asm volatile("pushq %1; popq %0" : "=r"(a) : "m"(AT(uint64_t, 0x10))); a; }));
    DO("set", ({ asm volatile("cmp %%eax, %%eax; sete %0" : "=m"(AT(uint8_t, 0x70))); 0; }));
    DO("bit", ({ asm volatile("btsl $4, %0" : "+m"(AT(uint32_t, 0x70))); 0; }));
    DO("string-in", ({ from = here + 0x10; to = words; count = 2; asm volatile("rep movsl" : "+S"(from), "+D"(to), "+c"(count) :: "memory"); words[1] + count; }));
    DO("string-out", ({ from = words; to = here + 0x78; count = 2; asm volatile("rep movsl" : "+S"(from), "+D"(to), "+c"(count) :: "memory"); count; }));
    DO("string-across", ({ from = here + 0x10; to = here + 0x1010; count = 2; asm volatile("rep movsl" : "+S"(from), "+D"(to), "+c"(count) :: "memory"); count; }));
    DO("string-back", ({ from = here + 0x1010; to = here + 0x88; count = 1; asm volatile("rep movsl" : "+S"(from), "+D"(to), "+c"(count) :: "memory"); R8(0x89); }));
    DO("string-fill", ({ to = here + 0x90; count = 3; asm volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(0xee) : "memory"); count; }));
    DO("string-compare", ({ from = here + 0x10; to = here + 0x1010; uint8_t set; asm volatile("cmpsb; sete %2" : "+S"(from), "+D"(to), "=r"(set) :: "memory"); set; }));
    DO("vector-in", ({ asm volatile("movdqu %1, %%xmm0; movq %%xmm0, %0" : "=r"(a) : "m"(AT(pair, 0x10)) : "xmm0"); a; }));
    DO("vector-out", ({ asm volatile("movq %1, %%xmm0; movdqu %%xmm0, %0" : "=m"(AT(pair, 0xa0)) : "r"(a) : "xmm0"); 0; }));
    DO("vector-word", ({ asm volatile("movd %1, %%xmm0; movd %%xmm0, %k0" : "=r"(b) : "m"(AT(uint32_t, 0x10)) : "xmm0"); b; }));
    DO("real-out", ({ asm volatile("fld1; fstpl %0" : "=m"(AT(double, 0xb0))); 0; }));
    DO("real-in", ({ asm volatile("fldl %1; fstpl %0" : "=m"(real) : "m"(AT(double, 0xb0))); real == 1.0; }));
    DO("unaligned", R32(0x12));
    DO("border", R64(0xffc));
    DO("border-store", R64(0xffc) = 0x0102030405060708);
    DO("border-or", ({ asm volatile("orl $1, %0" : "+m"(AT(uint32_t, 0xffe))); 0; }));
    DO("border-vector", ({ asm volatile("movdqu %1, %%xmm0; movq %%xmm0, %0" : "=r"(a) : "m"(AT(pair, 0xff4)) : "xmm0"); a; }));
    DO("border-vector-out", ({ asm volatile("movq %1, %%xmm0; movdqu %%xmm0, %0" : "=m"(AT(pair, 0xff4)) : "r"(a) : "xmm0"); 0; }));
    DO("prefetch", ({ asm volatile("prefetcht0 %0" :: "m"(AT(uint8_t, 0x10))); 0; }));
}
#endif

int main(void)
{
    map_registers();
    any_machine();
#ifdef __x86_64__
    x86();
#endif
    return 0;
}
