#include "test/gpu/emu/fiber.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#include <unistd.h>

#ifdef EMU_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

/* emu_switch(&from->sp, to->sp): saves what a function call must keep, changes the stack, restores. */
#if defined(__x86_64__)
extern "C" void emu_switch(void **from, void *to);
__asm__(".text\n"
        ".p2align 4\n"
        ".hidden emu_switch\n"
        ".globl emu_switch\n"
        ".type emu_switch, @function\n"
        "emu_switch:\n"
        "    push %rbp\n    push %rbx\n    push %r12\n    push %r13\n    push %r14\n    push %r15\n"
        "    mov %rsp, (%rdi)\n"
        "    mov %rsi, %rsp\n"
        "    pop %r15\n    pop %r14\n    pop %r13\n    pop %r12\n    pop %rbx\n    pop %rbp\n"
        "    pop %rcx\n"
        "    jmp *%rcx\n" /* a return would be predicted to go where this fiber was called from */
        ".size emu_switch, . - emu_switch\n");

static void *first_frame(char *top, void (*entry)()) {
    void **sp = (void **)top; /* a multiple of 16 */
    *--sp = nullptr;          /* entry finds the stack as after a call */
    *--sp = (void *)entry;
    for (int i = 0; i < 6; i++)
        *--sp = nullptr;
    return sp;
}

#elif defined(__aarch64__)
extern "C" void emu_switch(void **from, void *to);
__asm__(".text\n"
        ".p2align 4\n"
        ".hidden emu_switch\n"
        ".globl emu_switch\n"
        ".type emu_switch, %function\n"
        "emu_switch:\n"
        "    sub sp, sp, #160\n"
        "    stp x19, x20, [sp]\n      stp x21, x22, [sp, #16]\n  stp x23, x24, [sp, #32]\n"
        "    stp x25, x26, [sp, #48]\n stp x27, x28, [sp, #64]\n  stp x29, x30, [sp, #80]\n"
        "    stp d8, d9, [sp, #96]\n   stp d10, d11, [sp, #112]\n stp d12, d13, [sp, #128]\n"
        "    stp d14, d15, [sp, #144]\n"
        "    mov x9, sp\n"
        "    str x9, [x0]\n"
        "    mov sp, x1\n"
        "    ldp x19, x20, [sp]\n      ldp x21, x22, [sp, #16]\n  ldp x23, x24, [sp, #32]\n"
        "    ldp x25, x26, [sp, #48]\n ldp x27, x28, [sp, #64]\n  ldp x29, x30, [sp, #80]\n"
        "    ldp d8, d9, [sp, #96]\n   ldp d10, d11, [sp, #112]\n ldp d12, d13, [sp, #128]\n"
        "    ldp d14, d15, [sp, #144]\n"
        "    add sp, sp, #160\n"
        "    ret\n"
        ".size emu_switch, . - emu_switch\n");

static void *first_frame(char *top, void (*entry)()) {
    void **sp = (void **)(top - 160);
    memset(sp, 0, 160);
    sp[11] = (void *)entry; /* x30 */
    return sp;
}

#else
/* swapcontext makes system calls, for the signal mask: slow, but everywhere. */
#include <ucontext.h>
static void emu_switch(void **from, void *to) {
    ucontext_t here;
    *from = &here;
    swapcontext(&here, (ucontext_t *)to);
}
static void *first_frame(char *top, void (*entry)()) {
    /* The context lies at the top of the stack that it describes. */
    ucontext_t *c = (ucontext_t *)(((uintptr_t)top - sizeof *c) & ~(uintptr_t)63);
    char *low = (char *)(((uintptr_t)c - 32768) & ~(uintptr_t)4095);
    getcontext(c);
    c->uc_stack.ss_sp = low;
    c->uc_stack.ss_size = (size_t)((char *)c - low);
    c->uc_link = nullptr;
    makecontext(c, entry, 0);
    return c;
}
#endif

namespace emu {

#ifdef EMU_ASAN
static const size_t stack_bytes = 256 * 1024; /* its frames have red zones */
static fiber *came_from;
#else
static const size_t stack_bytes = 64 * 1024;
#endif

void fiber_create(fiber *f, int index, void (*entry)()) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *p = (char *)mmap(nullptr, page + stack_bytes, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED || mprotect(p, page, PROT_NONE) != 0) {
        perror("emulated card: no memory for the stack of a thread");
        abort();
    }
    *f = fiber();
    f->stack = p + page;
    f->bytes = stack_bytes;
    f->sp = first_frame(f->stack + stack_bytes - (size_t)(index % 12) * 320, entry);
}

#ifdef EMU_ASAN
/* The bounds of a thread's own stack become known when it is left. */
static void arrived(void *fake_stack) {
    const void *bottom;
    size_t bytes;
    __sanitizer_finish_switch_fiber(fake_stack, &bottom, &bytes);
    came_from->stack = (char *)bottom;
    came_from->bytes = bytes;
}

void fiber_switch(fiber *from, fiber *to) {
    came_from = from;
    __sanitizer_start_switch_fiber(&from->fake_stack, to->stack, to->bytes);
    emu_switch(&from->sp, to->sp);
    arrived(from->fake_stack);
}

void fiber_entered() {
    arrived(nullptr);
}
#else
void fiber_switch(fiber *from, fiber *to) {
    emu_switch(&from->sp, to->sp);
}

void fiber_entered() {
}
#endif

} // namespace emu
