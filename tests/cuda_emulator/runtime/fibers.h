// How a fiber is started, left and entered again; part of runtime.cpp. On x86-64 by a few instructions of our
// own, elsewhere by ucontext.
#pragma once
#include <cstdlib>
#include <vector>

#include "runtime.h"

#if !defined(__x86_64__)
#define USE_UCONTEXT
#endif
#ifdef USE_UCONTEXT
#include <ucontext.h>
#endif

namespace {

constexpr size_t stack_bytes = 64 << 10, guard_bytes = 4096;
constexpr int max_threads = 1024;

void fiber_main();

#ifdef USE_UCONTEXT
std::vector<ucontext_t> contexts(max_threads);
ucontext_t home_context;

void prepare(Thread* thread, char* bottom, char* top) {
  ucontext_t& context = contexts[thread->stack];
  getcontext(&context);
  context.uc_stack.ss_sp = bottom;
  context.uc_stack.ss_size = top - bottom;
  context.uc_link = nullptr;
  makecontext(&context, fiber_main, 0);
  thread->stack_pointer = top;
}
void switch_to(Thread* from, Thread* to) {
  static ucontext_t dropped;
  swapcontext(from ? &contexts[from->stack] : &dropped, &contexts[to->stack]);
}
void leave_home(Thread* first) { swapcontext(&home_context, &contexts[first->stack]); }
[[noreturn]] void go_home() {
  setcontext(&home_context);
  abort();
}
#else
// saves the callee-saved registers on the stack, the stack pointer in *from, and continues at `to`: 10 ns,
// where swapcontext takes 175 because it saves the signal mask
extern "C" void emulator_switch(void** from, void* to) __attribute__((visibility("hidden")));
asm(R"(
  .text
  .globl emulator_switch
  .hidden emulator_switch
  .type emulator_switch,@function
emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp,(%rdi)
  movq %rsi,%rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size emulator_switch,.-emulator_switch
)");
void* home_stack_pointer;

void prepare(Thread* thread, char*, char* top) {
  void** frame = (void**)((uintptr_t)top & ~(uintptr_t)15);
  *--frame = nullptr;
  *--frame = (void*)fiber_main;
  frame -= 6;
  memset(frame, 0, 6 * sizeof *frame);
  thread->stack_pointer = frame;
}
void switch_to(Thread* from, Thread* to) {
  void* dropped;
  emulator_switch(from ? &from->stack_pointer : &dropped, to->stack_pointer);
}
void leave_home(Thread* first) { emulator_switch(&home_stack_pointer, first->stack_pointer); }
[[noreturn]] void go_home() {
  void* dropped;
  emulator_switch(&dropped, home_stack_pointer);
  abort();
}
#endif

}  // namespace
