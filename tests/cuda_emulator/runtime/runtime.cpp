// The machine that runs a kernel on the CPU: fibers, a scheduler, barriers, warp collectives, shared memory.
//
// Blocks run one after another. A GPU thread runs until it waits at a barrier or in a warp collective, so
// that a missing barrier shows as a different order of whole phases; the order is the schedule's choice.
#include "runtime.h"

#include <elf.h>
#include <link.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>

#include <mutex>
#include <numeric>

#include "fibers.h"

__attribute__((visibility("default"))) uint3 threadIdx, blockIdx;
__attribute__((visibility("default"))) dim3 blockDim, gridDim;
Machine machine;

namespace {

// ---- stacks of the fibers

char* stacks;
std::vector<int> free_stacks;

void map_stacks() {
  if (stacks) return;
  stacks = (char*)mmap(nullptr, stack_bytes * max_threads, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  for (int i = 0; i < max_threads; i++) mprotect(stacks + i * stack_bytes, guard_bytes, PROT_NONE);
}

void give_stack(Thread* thread) {
  thread->stack = free_stacks.back();
  free_stacks.pop_back();
  char* bottom = stacks + thread->stack * stack_bytes + guard_bytes;
  // tops at equal distances would share cache sets
  char* top = stacks + (thread->stack + 1) * stack_bytes - 64 - thread->stack % 16 * 192;
  prepare(thread, bottom, top);
}

void resume(Thread* from, Thread* to) {
  machine.current = to;
  threadIdx = to->index;
  if (!to->stack_pointer) give_stack(to);
  switch_to(from, to);
}

// ---- the queue of threads that can run; the schedule decides which is next

std::vector<Thread*> queue;
size_t queue_head, queue_length;

uint64_t next_random() {
  uint64_t x = machine.random;
  x ^= x << 13;
  x ^= x >> 7;
  x ^= x << 17;
  return machine.random = x;
}

void enqueue(Thread* thread) {
  if (thread->state != unstarted) thread->state = ready;
  queue[(queue_head + queue_length++) % queue.size()] = thread;
}

Thread* dequeue() {
  if (!queue_length) return nullptr;
  queue_length--;
  if (machine.launch->schedule == schedule_fifo) {
    Thread* first = queue[queue_head];
    queue_head = (queue_head + 1) % queue.size();
    return first;
  }
  size_t last = (queue_head + queue_length) % queue.size();
  if (machine.launch->schedule == schedule_random)
    std::swap(queue[(queue_head + next_random() % (queue_length + 1)) % queue.size()], queue[last]);
  return queue[last];
}

[[noreturn]] void report_deadlock() {
  struct Group {
    Place place;
    State state;
    int count;
  };
  std::vector<Group> groups;
  int exited = 0;
  for (Thread& thread : machine.threads) {
    if (thread.state == finished) {
      exited++;
      continue;
    }
    Place place = thread.state == in_warp_op ? thread.warp->place[thread.lane] : thread.place;
    bool known = false;
    for (Group& group : groups)
      if (group.place.line == place.line && group.state == thread.state) group.count++, known = true;
    if (!known) groups.push_back({place, thread.state, 1});
  }
  char text[600];
  int used = 0;
  for (Group& group : groups)
    if (used < 500)
      used += snprintf(text + used, sizeof text - used, "%d thread(s) at %s %s:%d, ", group.count,
                       group.state == at_barrier ? "barrier" : "warp collective", group.place.file,
                       group.place.line);
  fail(0, "deadlock in block (%u,%u,%u): %s%d exited", blockIdx.x, blockIdx.y, blockIdx.z, text, exited);
}

void wait() {
  Thread *self = machine.current, *next = dequeue();
  if (!next) report_deadlock();
  if (next != self) resume(self, next);
}

// ---- barriers of the block

bool skipped(int line, const char* file) {
  const Launch* launch = machine.launch;
  return launch->skipped_file && line == launch->skipped_line && !strcmp(file, launch->skipped_file);
}

std::vector<Place> recorded;

void record(int line, const char* file) {
  if (!machine.launch->recording) return;
  for (Place& place : recorded)
    if (place.line == line && !strcmp(place.file, file)) return;
  recorded.push_back({file, line});
}

void release_barrier() {
  Thread* first = nullptr;
  int count = 0;
  for (Thread& thread : machine.threads) {
    if (thread.state != at_barrier) continue;
    if (!first) first = &thread;
    count += thread.predicate;
    if (thread.place.line != first->place.line || thread.barrier_kind != first->barrier_kind)
      fail(0, "divergent barrier in block (%u,%u,%u): thread (%u,%u,%u) at %s:%d, thread (%u,%u,%u) at %s:%d",
           blockIdx.x, blockIdx.y, blockIdx.z, first->index.x, first->index.y, first->index.z,
           first->place.file, first->place.line, thread.index.x, thread.index.y, thread.index.z,
           thread.place.file, thread.place.line);
  }
  int exited = (int)machine.threads.size() - machine.alive;
  if (exited)
    fail(0, "%d thread(s) of block (%u,%u,%u) exited before the barrier at %s:%d", exited, blockIdx.x,
         blockIdx.y, blockIdx.z, first->place.file, first->place.line);
  for (Thread& thread : machine.threads) {
    int kind = thread.barrier_kind;
    thread.barrier_result = kind == emulator::barrier_count ? count
                            : kind == emulator::barrier_and ? count == machine.waiting
                                                            : count > 0;
    enqueue(&thread);
  }
  machine.waiting = 0;
  machine.epoch++;
  record(first->place.line, first->place.file);
}

// ---- warp collectives

uint32_t combine(int op, uint32_t a, uint32_t b) {
  switch (op) {
    case emulator::warp_add: return a + b;
    case emulator::warp_min: return (int)b < (int)a ? b : a;
    case emulator::warp_max: return (int)b > (int)a ? b : a;
    case emulator::warp_unsigned_min: return b < a ? b : a;
    case emulator::warp_unsigned_max: return b > a ? b : a;
    case emulator::warp_and: return a & b;
    case emulator::warp_or: return a | b;
    default: return a ^ b;
  }
}

// all lanes of `taking_part` have arrived; `leader` is one of them
void complete_collective(Warp* warp, unsigned taking_part, int leader) {
  int op = warp->op[leader], number = (int)(warp - machine.warps.data());
  unsigned ballot = 0;
  uint32_t total = 0;
  bool first = true;
  for (int lane = 0; lane < 32; lane++) {
    if (!(taking_part >> lane & 1)) continue;
    if (warp->op[lane] != op || warp->mask[lane] != warp->mask[leader] ||
        warp->place[lane].line != warp->place[leader].line)
      fail(0,
           "divergent warp collective in block (%u,%u,%u) warp %d: lane %d at %s:%d mask %08x, lane %d at "
           "%s:%d mask %08x",
           blockIdx.x, blockIdx.y, blockIdx.z, number, leader, warp->place[leader].file,
           warp->place[leader].line, warp->mask[leader], lane, warp->place[lane].file, warp->place[lane].line,
           warp->mask[lane]);
    uint32_t value = (uint32_t)warp->value[lane];
    if (value) ballot |= 1u << lane;
    total = first ? value : combine(op, total, value);
    first = false;
  }
  for (int lane = 0; lane < 32; lane++) {
    if (!(taking_part >> lane & 1)) continue;
    int source = warp->source[lane];
    if (op == emulator::warp_shuffle && !(taking_part >> source & 1))
      fail(0,
           "shuffle at %s:%d: lane %d of warp %d in block (%u,%u,%u) reads lane %d, which does not take part",
           warp->place[lane].file, warp->place[lane].line, lane, number, blockIdx.x, blockIdx.y, blockIdx.z,
           source);
    warp->result[lane] = op == emulator::warp_shuffle  ? warp->value[source]
                         : op == emulator::warp_ballot ? ballot
                                                       : total;
  }
  warp->waiting &= ~taking_part;
  if (op == emulator::warp_sync) {
    warp->phase++;
    record(warp->place[leader].line, warp->place[leader].file);
  }
}

void wake_lanes(Warp* warp, unsigned lanes) {
  Thread* first = &machine.threads[(warp - machine.warps.data()) * 32];
  for (int lane = 0; lane < 32; lane++)
    if (lanes >> lane & 1) enqueue(first + lane);
}

// ---- the life of a thread and of a block

void end_thread(Thread* thread) {
  thread->state = finished;
  machine.alive--;
  Warp* warp = thread->warp;
  warp->alive &= ~(1u << thread->lane);
  while (warp->waiting) {
    int leader = __builtin_ctz(warp->waiting);
    unsigned taking_part = warp->mask[leader] & warp->alive;
    if ((warp->waiting & taking_part) != taking_part) break;
    complete_collective(warp, taking_part, leader);
    wake_lanes(warp, taking_part);
  }
  if (machine.alive && machine.waiting == machine.alive) release_barrier();
}

void fiber_main() {
  for (;;) {
    Thread* self = machine.current;
    machine.launch->entry(machine.launch->arguments);
    end_thread(self);
    Thread* next = dequeue();
    if (!next) {
      if (machine.alive) report_deadlock();
      go_home();
    }
    if (next->stack_pointer) {
      free_stacks.push_back(self->stack);
      resume(nullptr, next);
    }
    // an unstarted thread continues on this stack: kernels without barriers never switch
    next->stack_pointer = self->stack_pointer;
    next->stack = self->stack;
    machine.current = next;
    threadIdx = next->index;
  }
}

void fill(char* begin, char* end, int byte) {
  // volatile, because the compiler knows memset and address sanitizers intercept it
  uint64_t word = 0x0101010101010101u * (unsigned char)byte;
  volatile char* at = begin;
  for (; at + 8 <= end; at += 8) *(volatile uint64_t*)at = word;
  for (; at < end; at++) *at = (char)byte;
}

__attribute__((noinline)) void run_block(uint64_t number) {
  Launch* launch = machine.launch;
  unsigned* grid = launch->grid;
  blockIdx = {(unsigned)(number % grid[0]), (unsigned)(number / grid[0] % grid[1]),
              (unsigned)(number / grid[0] / grid[1])};
  fill(launch->static_begin, launch->static_end, launch->poison);
  if (machine.dynamic_shared)
    fill(machine.dynamic_shared, machine.dynamic_shared + launch->dynamic_bytes, launch->poison);
  free_stacks.clear();
  for (int i = max_threads - 1; i >= 0; i--) free_stacks.push_back(i);
  int count = (int)machine.threads.size();
  queue_head = queue_length = 0;
  machine.alive = count;
  machine.waiting = 0;
  machine.block_epoch = ++machine.epoch;
  for (int i = 0; i < (int)machine.warps.size(); i++) {
    Warp& warp = machine.warps[i];
    warp.alive = count - i * 32 >= 32 ? 0xffffffffu : (1u << (count - i * 32)) - 1;
    warp.waiting = warp.phase = 0;
  }
  for (int i = 0; i < count; i++) {
    Thread& thread = machine.threads[i];
    thread.stack_pointer = nullptr;
    thread.state = unstarted;
    thread.number = i;
    thread.lane = i % 32;
    thread.warp = &machine.warps[i / 32];
    thread.index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y)};
    // one open group, allocated once per thread and kept over the blocks
    if (thread.copies.size() != 1 || !thread.copies[0].empty()) thread.copies.assign(1, {});
    enqueue(&thread);
  }
  Thread* first = dequeue();
  machine.current = first;
  threadIdx = first->index;
  give_stack(first);
  leave_home(first);
}

// the order of blocks: ascending, descending, or any permutation of the form a i + b
uint64_t block_at(uint64_t i, uint64_t count, uint64_t step, uint64_t start) {
  switch (machine.launch->schedule) {
    case schedule_fifo: return i;
    case schedule_lifo: return count - 1 - i;
    default: return (uint64_t)(((unsigned __int128)i * step + start) % count);
  }
}

void run_blocks() {
  Launch* launch = machine.launch;
  uint64_t count = launch->last_block - launch->first_block + 1, step = next_random() % count + 1;
  while (std::gcd(step, count) != 1) step++;
  uint64_t start = next_random() % count;
  for (uint64_t i = 0; i < count && !machine.failed; i++)
    run_block(launch->first_block + block_at(i, count, step, start));
}

// ---- signals: a fault in a kernel becomes a message

pthread_t launching_thread;
jmp_buf signal_home;

void on_signal(int number, siginfo_t*, void* context) {
  if (!pthread_equal(pthread_self(), launching_thread)) {
    // the timer's signal goes to any thread of the process; a fault elsewhere is not ours
    if (number == SIGVTALRM) {
      pthread_kill(launching_thread, number);
      return;
    }
    signal(number, SIG_DFL);
    return;
  }
  Launch* launch = machine.launch;
#if defined(__x86_64__)
  launch->error_address = ((ucontext_t*)context)->uc_mcontext.gregs[REG_RIP] + 1;
#elif defined(__aarch64__)
  launch->error_address = ((ucontext_t*)context)->uc_mcontext.pc + 4;
#endif
  const char* meaning = number == SIGSEGV || number == SIGBUS   ? "invalid address or stack overflow"
                        : number == SIGILL || number == SIGTRAP ? "undefined behaviour"
                        : number == SIGFPE                      ? "integer division by zero"
                                                                : "time limit, an endless loop?";
  if (!machine.failed) {
    machine.failed = true;
    snprintf(launch->message, launch->message_size, "%s (signal %d) in " AT, meaning, number, AT_VALUES);
  }
  _longjmp(signal_home, 1);
}

constexpr int caught[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE, SIGVTALRM};

void run_guarded() {
  static char handler_stack[64 << 10];
  stack_t stack{}, old_stack{};
  stack.ss_sp = handler_stack;
  stack.ss_size = sizeof handler_stack;
  sigaltstack(&stack, &old_stack);
  struct sigaction action{}, old[std::size(caught)];
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  for (size_t i = 0; i < std::size(caught); i++) sigaction(caught[i], &action, &old[i]);
  // processor time, not the wall clock, whose timer test runners use
  int limit = machine.launch->time_limit_ms;
  itimerval timer{{0, 0}, {limit / 1000, limit % 1000 * 1000}}, off{};
  setitimer(ITIMER_VIRTUAL, &timer, nullptr);
  if (!_setjmp(signal_home)) run_blocks();
  setitimer(ITIMER_VIRTUAL, &off, nullptr);
  for (size_t i = 0; i < std::size(caught); i++) sigaction(caught[i], &old[i], nullptr);
  sigaltstack(&old_stack, nullptr);
}

// dynamic shared memory that ends at a page no one may touch
struct DynamicShared {
  char* map = nullptr;
  size_t bytes = 0;

  explicit DynamicShared(uint64_t wanted) {
    machine.dynamic_shared = nullptr;
    if (!wanted) return;
    bytes = (wanted + 4095) / 4096 * 4096 + guard_bytes;
    map = (char*)mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(map + bytes - guard_bytes, guard_bytes, PROT_NONE);
    machine.dynamic_shared = map + bytes - guard_bytes - (wanted + 15) / 16 * 16;
  }
  ~DynamicShared() {
    if (map) munmap(map, bytes);
    machine.dynamic_shared = nullptr;
  }
};

std::mutex one_launch_at_a_time;

}  // namespace

void fail(uintptr_t code, const char* format, ...) {
  if (!machine.failed) {
    machine.failed = true;
    va_list values;
    va_start(values, format);
    vsnprintf(machine.launch->message, machine.launch->message_size, format, values);
    va_end(values);
    machine.launch->error_address = code;
  }
  go_home();
}

bool on_fiber_stack(uintptr_t address) { return address - (uintptr_t)stacks < stack_bytes * max_threads; }

// the range that a loaded library takes in memory
void library_range(uintptr_t inside, uintptr_t* begin, uintptr_t* end, uintptr_t* base) {
  struct Search {
    uintptr_t inside, begin, end, base;
  } search{inside, 0, 0, 0};
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* data) {
        Search& search = *(Search*)data;
        uintptr_t low = ~(uintptr_t)0, high = 0;
        for (int i = 0; i < info->dlpi_phnum; i++) {
          const ElfW(Phdr) & segment = info->dlpi_phdr[i];
          if (segment.p_type != PT_LOAD) continue;
          low = std::min(low, (uintptr_t)(info->dlpi_addr + segment.p_vaddr));
          high = std::max(high, (uintptr_t)(info->dlpi_addr + segment.p_vaddr + segment.p_memsz));
        }
        if (search.inside < low || search.inside >= high) return 0;
        search.begin = low;
        search.end = high;
        search.base = info->dlpi_addr;
        return 1;
      },
      &search);
  *begin = search.begin;
  *end = search.end;
  *base = search.base;
}

// ---- called by kernels

EXPORT int emulator_barrier(int kind, int predicate, int line, const char* file) {
  if (skipped(line, file)) return kind == emulator::barrier_count ? predicate : predicate != 0;
  Thread* self = machine.current;
  self->place = {file, line};
  self->barrier_kind = kind;
  self->predicate = predicate;
  self->state = at_barrier;
  if (++machine.waiting == machine.alive) release_barrier();
  wait();
  return self->barrier_result;
}

EXPORT uint64_t emulator_warp(int op, unsigned mask, uint64_t value, int source, int line, const char* file) {
  if (op == emulator::warp_sync && skipped(line, file)) return 0;
  Thread* self = machine.current;
  Warp* warp = self->warp;
  int lane = self->lane;
  if (!(mask >> lane & 1))
    fail(0, "warp collective at %s:%d: mask %08x lacks the calling lane %d, " AT, file, line, mask, lane,
         AT_VALUES);
  warp->op[lane] = op;
  warp->mask[lane] = mask;
  warp->value[lane] = value;
  warp->source[lane] = source & 31;
  warp->place[lane] = {file, line};
  warp->waiting |= 1u << lane;
  unsigned taking_part = mask & warp->alive;
  if ((warp->waiting & taking_part) != taking_part) {
    self->state = in_warp_op;
    wait();
    return warp->result[lane];
  }
  complete_collective(warp, taking_part, lane);
  bool goes_on = machine.launch->schedule != schedule_random;
  wake_lanes(warp, goes_on ? taking_part & ~(1u << lane) : taking_part);
  if (!goes_on) wait();
  return warp->result[lane];
}

EXPORT void* emulator_dynamic_shared() {
  if (!machine.dynamic_shared)
    fail((uintptr_t)__builtin_return_address(0), "dynamic shared memory used but none given at the launch");
  return machine.dynamic_shared;
}

EXPORT void emulator_trap() { fail((uintptr_t)__builtin_return_address(0), "__trap() in " AT, AT_VALUES); }

EXPORT void emulator_note_atomic(void* address, int bytes, void* caller) {
  check_access((uintptr_t)address, bytes, true, true, (uintptr_t)caller);
}

// ---- asynchronous copies land only at the wait, so that a missing one is seen

EXPORT void emulator_copy_async(void* shared, const void* global, int bytes, int valid) {
  uintptr_t code = (uintptr_t)__builtin_return_address(0);
  if (((uintptr_t)shared | (uintptr_t)global) & (bytes - 1))
    fail(code, "copy_async is not aligned to %d bytes, " AT, bytes, AT_VALUES);
  if (valid > 0) check_access((uintptr_t)global, valid, false, false, code);
  check_access((uintptr_t)shared, bytes, true, false, code);
  machine.current->copies.back().push_back({(char*)shared, (const char*)global, bytes, valid});
  memset(shared, 0xff, bytes);
}

EXPORT void emulator_copy_commit() { machine.current->copies.emplace_back(); }

EXPORT void emulator_copy_wait(int pending, int line, const char* file) {
  record(line, file);
  if (skipped(line, file)) return;
  std::vector<std::vector<AsyncCopy>>& groups = machine.current->copies;
  while ((int)groups.size() - 1 > pending) {
    for (AsyncCopy& copy : groups.front()) {
      // checked at its start too: a copy may neither land on nor start under another thread's reads
      check_access((uintptr_t)copy.target, copy.bytes, true, false, (uintptr_t)__builtin_return_address(0));
      memcpy(copy.target, copy.source, copy.valid);
      memset(copy.target + copy.valid, 0, copy.bytes - copy.valid);
    }
    groups.erase(groups.begin());
  }
}

// ---- called by Python

EXPORT int emulator_launch(Launch* launch) {
  std::lock_guard<std::mutex> lock(one_launch_at_a_time);
  map_stacks();
  launching_thread = pthread_self();
  machine.launch = launch;
  machine.failed = false;
  machine.random = launch->seed * 0x9E3779B97F4A7C15u + 88172645463325252u;
  machine.launch_epoch = ++machine.epoch;
  blockDim = {launch->block[0], launch->block[1], launch->block[2]};
  gridDim = {launch->grid[0], launch->grid[1], launch->grid[2]};
  int count = launch->block[0] * launch->block[1] * launch->block[2];
  machine.threads.resize(count);
  machine.warps.resize((count + 31) / 32);
  queue.resize(count);
  DynamicShared shared(launch->dynamic_bytes);
  uintptr_t begin, end, base;
  library_range((uintptr_t)launch->entry, &begin, &end, &base);
  if (launch->checked) checker_start(launch, begin, end);
  run_guarded();
  checker_stop();
  if (launch->error_address) launch->error_address -= base;
  return machine.failed;
}

// the places of the barriers met while recording; returns their number and forgets them if `places` is given
EXPORT int emulator_recorded(Place* places) {
  int count = (int)recorded.size();
  if (places) {
    std::copy(recorded.begin(), recorded.end(), places);
    recorded.clear();
  }
  return count;
}
