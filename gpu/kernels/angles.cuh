// Sines and cosines of multiples of an angle, exact to rounding also for large angles.
#pragma once
#include "common.cuh"

// frequencies after which the angle is computed afresh
constexpr int RESEED = 16;

__device__ __noinline__ void far_sincos(float x, float* sine, float* cosine) { sincosf(x, sine, cosine); }

// within 1e-7 for every x: a quarter turn in three parts, which holds to 2e4, then polynomials
__device__ __forceinline__ void sine_cosine(float x, float& sine, float& cosine) {
  if (fabsf(x) > 2e4f) {
    float far_sine, far_cosine;
    far_sincos(x, &far_sine, &far_cosine);
    sine = far_sine, cosine = far_cosine;
    return;
  }
  float shifted = fmaf(x, 0.636619772f, 12582912.0f);
  unsigned quarter = __float_as_uint(shifted);
  float turns = shifted - 12582912.0f;
  float r = fmaf(turns, -7.549789948768648e-8f, fmaf(turns, -4.837512969970703e-4f, fmaf(turns, -1.5703125f, x)));
  float z = r * r;
  float s = fmaf(fmaf(-1.9515283162735778e-4f, z, 0.008332160761588972f), z, -0.16666654609542816f);
  float c = fmaf(fmaf(2.443315704713997e-5f, z, -0.0013887316254249282f), z, 0.041666645682973014f);
  s = fmaf(r * z, s, r);
  c = fmaf(z * z, c, fmaf(z, -0.5f, 1.0f));
  sine = __uint_as_float(__float_as_uint(quarter & 1 ? c : s) ^ ((quarter & 2) << 30));
  cosine = __uint_as_float(__float_as_uint(quarter & 1 ? s : c) ^ (((quarter + 1) & 2) << 30));
}
__device__ __forceinline__ void sine_cosine(double x, double& sine, double& cosine) {
  double s, c;
  sincos(x, &s, &c);
  sine = s, cosine = c;
}

// of m a: the product with what its rounding lost, so that a large angle keeps its phase
__device__ __forceinline__ void sine_cosine(acc_t a, int m, acc_t& sine, acc_t& cosine) {
  acc_t high = a * m, low = fma(a, (acc_t)m, -high);
  acc_t s, c, s_low, c_low;
  sine_cosine(high, s, c);
  sine_cosine(low, s_low, c_low);
  sine = fma(s, c_low, c * s_low);
  cosine = fma(c, c_low, -(s * s_low));
}

// from frequency m to m + 1
__device__ __forceinline__ void turn(acc_t sine_1, acc_t cosine_1, acc_t& sine, acc_t& cosine) {
  acc_t turned = fma(cosine, cosine_1, -(sine * sine_1));
  sine = fma(sine, cosine_1, cosine * sine_1);
  cosine = turned;
}
