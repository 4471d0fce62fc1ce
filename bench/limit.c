// The distance to the hardware: a loss and its gradient in the first logits, one row at a time, on one thread, with a
// short exponential and logarithm and no care for cancellation or for infinities. Compiled where there is a compiler.
#include <math.h>
#include <stdint.h>
#include <string.h>

static inline float bits_to_float(int32_t i) { float x; memcpy(&x, &i, 4); return x; }
static inline int32_t float_to_bits(float x) { int32_t i; memcpy(&i, &x, 4); return i; }

// exp(x) for -87 <= x <= 0
static inline float short_exp(float x) {
  x = x < -87.0f ? -87.0f : x;
  float n = floorf(x * 1.44269504f + 0.5f), r = x - n * 0.69314718f;
  float p = 1 + r * (1 + r * (0.5f + r * (0.16666667f + r * (0.04166667f + r * (0.00833333f + r * 0.00138889f)))));
  return p * bits_to_float(((int32_t)n + 127) << 23);
}

// log(x) for normal x > 0
static inline float short_log(float x) {
  int32_t i = float_to_bits(x) - 0x3f3504f3;
  int32_t e = i >> 23;
  float m = bits_to_float((i & 0x7fffff) + 0x3f3504f3), s = (m - 1) / (m + 1), z = s * s;
  return e * 0.69314718f + 2 * s * (1 + z * (0.33333333f + z * (0.2f + z * (0.14285714f + z * 0.11111111f))));
}

static void exponentials(const float *x, float *out, long k, float *largest, float *sum) {
  float m = x[0], s = 0;
  for (long i = 1; i < k; i++) m = x[i] > m ? x[i] : m;
  for (long i = 0; i < k; i++) s += out[i] = short_exp(x[i] - m);
  *largest = m, *sum = s;
}

// The mean over rows of KL(softmax(teacher) || softmax(student)); `room` holds 2 k floats.
float kl(const float *student, const float *teacher, float *gradient, float *room, long rows, long k) {
  float *p = room, *q = room + k, max_p, max_q, sum_p, sum_q;
  double total = 0;
  for (long row = 0; row < rows; row++, student += k, teacher += k, gradient += k) {
    exponentials(teacher, p, k, &max_p, &sum_p);
    exponentials(student, q, k, &max_q, &sum_q);
    float log_ratio = 0, a = 1 / (sum_p * rows), b = 1 / (sum_q * rows);
    for (long i = 0; i < k; i++) {
      log_ratio += p[i] * (teacher[i] - student[i]);
      gradient[i] = b * q[i] - a * p[i];
    }
    total += log_ratio / sum_p - (max_p - max_q) - logf(sum_p / sum_q);
  }
  return total / rows;
}

// The mean over rows of their Jensen-Shannon divergence.
float js(const float *student, const float *teacher, float *gradient, float *room, long rows, long k) {
  float *p = room, *q = room + k, max_p, max_q, sum_p, sum_q;
  double total = 0;
  for (long row = 0; row < rows; row++, student += k, teacher += k, gradient += k) {
    exponentials(teacher, p, k, &max_p, &sum_p);
    exponentials(student, q, k, &max_q, &sum_q);
    float shift_p = max_p + logf(sum_p), shift_q = max_q + logf(sum_q), to_p = 0, to_q = 0;
    for (long i = 0; i < k; i++) {
      float log_m = short_log(0.5f * (p[i] / sum_p + q[i] / sum_q) + 1e-30f);
      float surprise = student[i] - shift_q - log_m;
      to_p += p[i] * (teacher[i] - shift_p - log_m);
      to_q += q[i] * surprise;
      gradient[i] = q[i] * surprise;
    }
    to_p /= sum_p, to_q /= sum_q;
    float scale = 0.5f / (sum_q * rows);
    for (long i = 0; i < k; i++) gradient[i] = scale * (gradient[i] - q[i] * to_q);
    total += 0.5 * (to_p + to_q);
  }
  return total / rows;
}
