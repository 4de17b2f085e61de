// What the runtime and the checker share: the state of the one launch that is under way.
#pragma once
#include <cstdint>
#include <vector>

#include "cuda_cpu.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

struct Place {
  const char* file;
  int line;
};

// byte bounds of an argument or of shared memory; the checker keeps one cell per `1 << cell_shift` bytes
struct Region {
  uintptr_t begin, end;
  int cell_shift;
};

// one launch as device.py describes it; the layout is repeated there
struct Launch {
  void (*entry)(void**);
  void** arguments;
  unsigned grid[3], block[3];
  uint64_t dynamic_bytes;
  char *static_begin, *static_end;
  const Region* regions;
  int region_count;
  int schedule;  // enum Schedule
  uint64_t seed;
  int poison;  // the byte that fills shared memory before a block starts
  int checked;
  int time_limit_ms;
  uint64_t first_block, last_block;  // only these run
  const char* skipped_file;          // a barrier at this place does nothing; null for none
  int skipped_line;
  int recording;  // note the places of barriers
  char* message;  // out: what went wrong
  int message_size;
  uint64_t error_address;  // out: where in the code, 0 if unknown
};

enum Schedule { schedule_fifo, schedule_lifo, schedule_random };

enum State { unstarted, ready, at_barrier, in_warp_op, finished };

struct Warp {
  unsigned alive, waiting, phase;  // phase counts the __syncwarp done
  int op[32], source[32];
  unsigned mask[32];
  uint64_t value[32], result[32];
  Place place[32];
};

struct AsyncCopy {
  char* target;
  const char* source;
  int bytes, valid;
};

// a GPU thread: a fiber that switches only where it waits
struct Thread {
  void* stack_pointer;
  int stack, number, lane;
  State state;
  uint3 index;
  Warp* warp;
  Place place;
  int barrier_kind, predicate, barrier_result;
  std::vector<std::vector<AsyncCopy>> copies;  // groups, the last one still open
};

struct Machine {
  Launch* launch;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  Thread* current;
  int alive, waiting;  // threads of the block
  uint64_t random;
  char* dynamic_shared;
  // a count of barriers over all blocks: equal epochs mean unordered accesses; where block and launch began
  uint32_t epoch, block_epoch, launch_epoch;
  bool failed;
};
extern Machine machine;

// ends the launch with a message; `code` is the address of the offending instruction, 0 if unknown
[[noreturn]] void fail(uintptr_t code, const char* format, ...) __attribute__((format(printf, 2, 3)));

#define AT "block (%u,%u,%u) thread (%u,%u,%u)"
#define AT_VALUES                                                                         \
  blockIdx.x, blockIdx.y, blockIdx.z, machine.current->index.x, machine.current->index.y, \
      machine.current->index.z

bool on_fiber_stack(uintptr_t address);
void library_range(uintptr_t inside, uintptr_t* begin, uintptr_t* end, uintptr_t* base);

// checker.cpp
void checker_start(const Launch* launch, uintptr_t module_begin, uintptr_t module_end);
void checker_stop();
void check_access(uintptr_t address, size_t bytes, bool write, bool atomic, uintptr_t code);
