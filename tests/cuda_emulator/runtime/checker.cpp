// The checker: g++'s thread sanitizer pass turns every load and store of a kernel into a call; these are the
// functions it calls (libtsan is not linked). Each access must lie in an argument or in shared memory, must
// not read shared memory that this block has not written, and must not race with an access of another thread.
//
// Two accesses are ordered if a barrier of their block lies between them (another epoch), or, within a warp,
// a __syncwarp (another phase). Blocks of one launch are never ordered.
#include <stdio.h>
#include <stdlib.h>

#include "runtime.h"

namespace {

enum Readers : uint8_t { one_thread, one_warp, several_warps };

struct Cell {
  uint32_t write_epoch, read_epoch;
  uint32_t earlier_block_read;  // launch in which a block before this one read the cell
  uint16_t writer, reader;      // thread numbers
  uint16_t write_phase, read_phase;
  Readers readers;
  bool write_atomic;
};

struct Shadow {
  Region region;
  bool shared;
  Cell* cells;
};

std::vector<Shadow> shadows;
Shadow* last_hit;
uintptr_t module_begin, module_end, runtime_begin, runtime_end;
bool checking;

void add(Region region, bool shared) {
  size_t count = ((region.end - region.begin) >> region.cell_shift) + 1;
  // calloc leaves large arrays to the system, which clears only the pages that are touched
  shadows.push_back({region, shared, (Cell*)calloc(count, sizeof(Cell))});
}

Shadow* find(uintptr_t address) {
  if (last_hit && address >= last_hit->region.begin && address < last_hit->region.end) return last_hit;
  for (Shadow& shadow : shadows)
    if (address >= shadow.region.begin && address < shadow.region.end) return last_hit = &shadow;
  return nullptr;
}

// is an access by `thread` in `epoch` and `phase` unordered with one by the current thread?
bool unordered(uint32_t epoch, uint16_t thread, uint16_t phase, bool shared) {
  if (epoch < machine.launch_epoch) return false;
  if (epoch < machine.block_epoch) return !shared;
  Thread* self = machine.current;
  if (epoch != machine.epoch || thread == self->number) return false;
  return thread / 32 != self->number / 32 || phase == (uint16_t)self->warp->phase;
}

bool write_conflicts_with_reads(const Cell& cell, bool shared) {
  if (!shared && cell.earlier_block_read == machine.launch_epoch) return true;
  if (cell.read_epoch != machine.epoch)
    return !shared && cell.read_epoch >= machine.launch_epoch && cell.read_epoch < machine.block_epoch;
  if (cell.readers == several_warps) return true;
  Thread* self = machine.current;
  if (cell.readers == one_warp)
    return cell.reader / 32 != self->number / 32 || cell.read_phase == (uint16_t)self->warp->phase;
  return unordered(cell.read_epoch, cell.reader, cell.read_phase, shared);
}

void note_read(Cell& cell) {
  Thread* self = machine.current;
  uint16_t phase = (uint16_t)self->warp->phase;
  if (cell.read_epoch >= machine.launch_epoch && cell.read_epoch < machine.block_epoch)
    cell.earlier_block_read = machine.launch_epoch;
  bool fresh = cell.read_epoch != machine.epoch;
  bool same_warp = cell.reader / 32 == self->number / 32;
  if (!fresh && (cell.readers == several_warps || !same_warp)) {
    cell.readers = several_warps;
  } else if (fresh || cell.read_phase != phase) {
    // reads of an earlier phase are ordered before this warp's writes, and for others this one stands for
    // them
    cell.readers = one_thread;
    cell.reader = (uint16_t)self->number;
  } else if (cell.reader != self->number) {
    cell.readers = one_warp;
  }
  cell.read_epoch = machine.epoch;
  cell.read_phase = phase;
}

void note_write(Cell& cell, bool atomic) {
  cell.write_epoch = machine.epoch;
  cell.writer = (uint16_t)machine.current->number;
  cell.write_phase = (uint16_t)machine.current->warp->phase;
  cell.write_atomic = atomic;
}

[[noreturn]] void report_bounds(uintptr_t address, size_t bytes, bool write, uintptr_t code) {
  char nearest[80] = "far from every argument";
  for (Shadow& shadow : shadows) {
    const char* kind = shadow.shared ? "shared memory" : "an argument";
    long before = (long)(shadow.region.begin - address), after = (long)(address + bytes - shadow.region.end);
    if (before > 0 && before <= 4096) snprintf(nearest, sizeof nearest, "%ld bytes before %s", before, kind);
    if (after > 0 && after <= 4096)
      snprintf(nearest, sizeof nearest, "%ld bytes past the end of %s", after, kind);
  }
  fail(code, "out-of-bounds %s of %zu bytes, %s, " AT, write ? "write" : "read", bytes, nearest, AT_VALUES);
}

[[noreturn]] void report_race(const Shadow& shadow, const Cell& cell, bool write, bool with_write,
                              uintptr_t address, uintptr_t code) {
  uint32_t epoch = with_write ? cell.write_epoch : cell.read_epoch;
  int thread = with_write ? cell.writer : cell.reader;
  char other[60];
  if (epoch < machine.block_epoch || (!with_write && cell.earlier_block_read == machine.launch_epoch))
    snprintf(other, sizeof other, "another block");
  else
    snprintf(other, sizeof other, "thread (%u,%u,%u)", machine.threads[thread].index.x,
             machine.threads[thread].index.y, machine.threads[thread].index.z);
  fail(code, "race: %s of %s memory (byte %zu) by " AT " against a %s by %s", write ? "write" : "read",
       shadow.shared ? "shared" : "global", (size_t)(address - shadow.region.begin), AT_VALUES,
       with_write ? "write" : "read", other);
}

}  // namespace

void checker_start(const Launch* launch, uintptr_t begin, uintptr_t end) {
  last_hit = nullptr;
  for (int i = 0; i < launch->region_count; i++) add(launch->regions[i], false);
  uintptr_t fixed = (uintptr_t)launch->static_begin, dynamic = (uintptr_t)machine.dynamic_shared;
  if (launch->static_end > launch->static_begin) add({fixed, (uintptr_t)launch->static_end, 1}, true);
  if (dynamic) add({dynamic, dynamic + launch->dynamic_bytes, 1}, true);
  module_begin = begin;
  module_end = end;
  uintptr_t base;
  if (!runtime_begin) library_range((uintptr_t)&threadIdx, &runtime_begin, &runtime_end, &base);
  checking = true;
}

void checker_stop() {
  checking = false;
  for (Shadow& shadow : shadows) free(shadow.cells);
  shadows.clear();
}

void check_access(uintptr_t address, size_t bytes, bool write, bool atomic, uintptr_t code) {
  if (!checking || on_fiber_stack(address)) return;
  Shadow* shadow = find(address);
  if (!shadow) {
    // tables of the kernel's library and the index variables, which live in the runtime's
    if (address >= module_begin && address < module_end) return;
    if (address >= runtime_begin && address < runtime_end) return;
    report_bounds(address, bytes, write, code);
  }
  Region& region = shadow->region;
  if (address + bytes > region.end) report_bounds(address, bytes, write, code);
  size_t first = (address - region.begin) >> region.cell_shift;
  size_t last = (address + bytes - 1 - region.begin) >> region.cell_shift;
  for (size_t i = first; i <= last; i++) {
    Cell& cell = shadow->cells[i];
    if (!write && shadow->shared && cell.write_epoch < machine.block_epoch)
      fail(code, "uninitialised read of shared memory (byte %zu), " AT, (size_t)(address - region.begin),
           AT_VALUES);
    if (!(atomic && cell.write_atomic) &&
        unordered(cell.write_epoch, cell.writer, cell.write_phase, shadow->shared))
      report_race(*shadow, cell, write, true, address, code);
    if (!write) {
      note_read(cell);
      continue;
    }
    if (write_conflicts_with_reads(cell, shadow->shared))
      report_race(*shadow, cell, write, false, address, code);
    note_write(cell, atomic);
  }
}

#define ACCESS(name, bytes, write)                                                                 \
  EXPORT void name(void* address) {                                                                \
    check_access((uintptr_t)address, bytes, write, false, (uintptr_t)__builtin_return_address(0)); \
  }
#define ACCESSES(bytes)                              \
  ACCESS(__tsan_read##bytes, bytes, false)           \
  ACCESS(__tsan_write##bytes, bytes, true)           \
  ACCESS(__tsan_unaligned_read##bytes, bytes, false) \
  ACCESS(__tsan_unaligned_write##bytes, bytes, true) \
  ACCESS(__tsan_volatile_read##bytes, bytes, false)  \
  ACCESS(__tsan_volatile_write##bytes, bytes, true)
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)
EXPORT void __tsan_read_range(void* address, size_t bytes) {
  if (bytes) check_access((uintptr_t)address, bytes, false, false, (uintptr_t)__builtin_return_address(0));
}
EXPORT void __tsan_write_range(void* address, size_t bytes) {
  if (bytes) check_access((uintptr_t)address, bytes, true, false, (uintptr_t)__builtin_return_address(0));
}
EXPORT void __tsan_init() {}
EXPORT void __tsan_func_entry(void*) {}
EXPORT void __tsan_func_exit() {}
