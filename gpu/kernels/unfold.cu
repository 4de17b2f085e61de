// Windows of an image: one thread per value. y is (b, down, across, size size c).
#include "common.cuh"

struct windows_t {
  int h, w, c, down, across, size, stride, padding;
};

extern "C" __global__ void __launch_bounds__(256)
    unfold(const T* __restrict__ x, T* __restrict__ y, windows_t s, index_t count) {
  index_t at = global_index();
  if (at >= count) return;
  int channel = at % s.c, tap = at / s.c % (s.size * s.size);
  index_t window = at / s.c / (s.size * s.size), item = window / s.across / s.down;
  int row = window / s.across % s.down * s.stride + tap / s.size - s.padding;
  int column = window % s.across * s.stride + tap % s.size - s.padding;
  bool inside = row >= 0 && row < s.h && column >= 0 && column < s.w;
  st(&y[at], inside ? ld(x[((item * s.h + row) * s.w + column) * s.c + channel]) : acc_t(0));
}

extern "C" __global__ void __launch_bounds__(256)
    fold(const T* __restrict__ dy, T* __restrict__ dx, windows_t s, index_t count) {
  index_t at = global_index();
  if (at >= count) return;
  int channel = at % s.c, column = at / s.c % s.w, row = at / s.c / s.w % s.h;
  index_t item = at / s.c / s.w / s.h;
  acc_t total = 0;
  for (int tap = 0; tap < s.size * s.size; tap++) {
    int below = row + s.padding - tap / s.size, right = column + s.padding - tap % s.size;
    int p = below / s.stride, q = right / s.stride;
    bool taken = below >= 0 && right >= 0 && p < s.down && q < s.across && p * s.stride == below &&
                 q * s.stride == right;
    if (taken) total += ld(dy[(((item * s.down + p) * s.across + q) * s.size * s.size + tap) * s.c + channel]);
  }
  st(&dx[at], total);
}
