/*
 * crc32c three times: slicing by 8 for any machine; the crc32 instruction, and folding with 512-bit carry-less
 * multiplication, on x86-64 processors that have them.
 *
 * The instruction has a latency of 3 cycles and a throughput of 1, so three stretches are run side by side and
 * their results joined: appending n zero bytes to a message multiplies its crc by x^(8n) mod P, which is one
 * carry-less multiplication by the constant x^(8n - 33) mod P and one crc32 instruction to reduce the product
 * (it multiplies by x^32; the reflected product is short of another x).
 *
 * Folding moves 128 bits ahead by n bits: their first half times x^(n + 64) plus their second times x^n, modulo P,
 * are 128 bits again, which are added to those that lie there. Sixteen such pieces are under way at a time; what is left of them is
 * 64 bytes with the crc of the whole.
 */
#include "crc32c.h"

#include <string.h>

/*
 * The table of a linear function is the exclusive or of its values for single bits. Rows: the crc of one byte
 * followed by 0 ... 7 zero bytes.
 */
#define ENTRY(i, a, b, c, d, e, f, g, h)                                                              \
  (((i) & 1 ? a : 0) ^ ((i) & 2 ? b : 0) ^ ((i) & 4 ? c : 0) ^ ((i) & 8 ? d : 0) ^ ((i) & 16 ? e : 0) ^ \
   ((i) & 32 ? f : 0) ^ ((i) & 64 ? g : 0) ^ ((i) & 128 ? h : 0))
#define ENTRIES4(i, ...) \
  ENTRY(i, __VA_ARGS__), ENTRY(i + 1, __VA_ARGS__), ENTRY(i + 2, __VA_ARGS__), ENTRY(i + 3, __VA_ARGS__)
#define ENTRIES16(i, ...)                                                                       \
  ENTRIES4(i, __VA_ARGS__), ENTRIES4(i + 4, __VA_ARGS__), ENTRIES4(i + 8, __VA_ARGS__),          \
      ENTRIES4(i + 12, __VA_ARGS__)
#define ENTRIES64(i, ...)                                                                       \
  ENTRIES16(i, __VA_ARGS__), ENTRIES16(i + 16, __VA_ARGS__), ENTRIES16(i + 32, __VA_ARGS__),     \
      ENTRIES16(i + 48, __VA_ARGS__)
#define ROW(...)                                                                                \
  {ENTRIES64(0, __VA_ARGS__), ENTRIES64(64, __VA_ARGS__), ENTRIES64(128, __VA_ARGS__), ENTRIES64(192, __VA_ARGS__)}

static const uint32_t TABLE[8][256] = {
    ROW(0xf26b8303, 0xe13b70f7, 0xc79a971f, 0x8ad958cf, 0x105ec76f, 0x20bd8ede, 0x417b1dbc, 0x82f63b78),
    ROW(0x13a29877, 0x274530ee, 0x4e8a61dc, 0x9d14c3b8, 0x3fc5f181, 0x7f8be302, 0xff17c604, 0xfbc3faf9),
    ROW(0xa541927e, 0x4f6f520d, 0x9edea41a, 0x38513ec5, 0x70a27d8a, 0xe144fb14, 0xc76580d9, 0x8b277743),
    ROW(0xdd45aab8, 0xbf672381, 0x7b2231f3, 0xf64463e6, 0xe964b13d, 0xd725148b, 0xaba65fe7, 0x52a0c93f),
    ROW(0x38116fac, 0x7022df58, 0xe045beb0, 0xc5670b91, 0x8f2261d3, 0x1ba8b557, 0x37516aae, 0x6ea2d55c),
    ROW(0xef306b19, 0xdb8ca0c3, 0xb2f53777, 0x6006181f, 0xc00c303e, 0x85f4168d, 0x0e045beb, 0x1c08b7d6),
    ROW(0x68032cc8, 0xd0065990, 0xa5e0c5d1, 0x4e2dfd53, 0x9c5bfaa6, 0x3d5b83bd, 0x7ab7077a, 0xf56e0ef4),
    ROW(0x493c7d27, 0x9278fa4e, 0x211d826d, 0x423b04da, 0x847609b4, 0x0d006599, 0x1a00cb32, 0x34019664),
};

static uint32_t little_u32(const uint8_t *p) {
  return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

uint32_t crc32c_portable(uint32_t seed, const void *bytes, size_t length) {
  const uint8_t *p = bytes;
  uint32_t crc = ~seed;
  for (; length >= 8; p += 8, length -= 8) {
    uint32_t low = crc ^ little_u32(p), high = little_u32(p + 4);
    crc = TABLE[7][low & 0xff] ^ TABLE[6][low >> 8 & 0xff] ^ TABLE[5][low >> 16 & 0xff] ^ TABLE[4][low >> 24] ^
          TABLE[3][high & 0xff] ^ TABLE[2][high >> 8 & 0xff] ^ TABLE[1][high >> 16 & 0xff] ^ TABLE[0][high >> 24];
  }
  for (; length > 0; p++, length--) crc = crc >> 8 ^ TABLE[0][(crc ^ *p) & 0xff];
  return ~crc;
}

#if defined(__x86_64__)
#include <immintrin.h>

/* Three of the long stretches are 4080 bytes: one block but its last two words. */
enum { LONG_BYTES = 1360, SHORT_BYTES = 128 };
/* x^(8 * 2n - 33) and x^(8 * n - 33) mod P, reflected, for both stretches. */
#define LONG_TWICE 0x5aa1f3cf
#define LONG_ONCE 0x3f70cc6f
#define SHORT_TWICE 0xb9e02b86
#define SHORT_ONCE 0x0d3b6092

#define HARDWARE __attribute__((target("sse4.2,pclmul")))

HARDWARE static inline uint64_t word_at(const uint8_t *p) {
  uint64_t word;
  memcpy(&word, p, sizeof word);
  return word;
}

HARDWARE static inline uint64_t advance(uint64_t crc, uint32_t power) {
  __m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)crc), _mm_cvtsi64_si128(power), 0);
  return _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(product));
}

/* The crc of 3 * stretch bytes at p, continued from crc. */
HARDWARE static inline uint64_t three_stretches(uint64_t crc, const uint8_t *p, size_t stretch, uint32_t twice,
                                                uint32_t once) {
  uint64_t second = 0, third = 0;
  for (const uint8_t *end = p + stretch; p < end; p += 8) {
    crc = _mm_crc32_u64(crc, word_at(p));
    second = _mm_crc32_u64(second, word_at(p + stretch));
    third = _mm_crc32_u64(third, word_at(p + 2 * stretch));
  }
  return advance(crc, twice) ^ advance(second, once) ^ third;
}

HARDWARE static uint32_t crc32c_x86(uint32_t seed, const void *bytes, size_t length) {
  const uint8_t *p = bytes;
  uint64_t crc = (uint32_t)~seed;
  for (; length >= 3 * LONG_BYTES; p += 3 * LONG_BYTES, length -= 3 * LONG_BYTES)
    crc = three_stretches(crc, p, LONG_BYTES, LONG_TWICE, LONG_ONCE);
  for (; length >= 3 * SHORT_BYTES; p += 3 * SHORT_BYTES, length -= 3 * SHORT_BYTES)
    crc = three_stretches(crc, p, SHORT_BYTES, SHORT_TWICE, SHORT_ONCE);
  for (; length >= 8; p += 8, length -= 8) crc = _mm_crc32_u64(crc, word_at(p));
  for (; length > 0; p++, length--) crc = _mm_crc32_u8((uint32_t)crc, *p);
  return ~(uint32_t)crc;
}

#define WIDE __attribute__((target("avx512f,avx512vl,vpclmulqdq,sse4.2,pclmul")))

enum { FOLD_BYTES = 256, VECTOR_BYTES = 64 };
/* x^(n + 64 - 33) and x^(n - 33) mod P, reflected: n is 2048 bits, and 512. */
#define FAR_FIRST 0xdcb17aa4
#define FAR_SECOND 0xb9e02b86
#define NEAR_FIRST 0x740eef02
#define NEAR_SECOND 0x9e4addf8

WIDE static inline __m512i fold_powers(uint32_t first, uint32_t second) {
  return _mm512_broadcast_i32x4(_mm_set_epi64x(second, first));
}

WIDE static inline __m512i fold(__m512i pieces, __m512i powers, __m512i onto) {
  const int exclusive_or = 0x96;
  __m512i first = _mm512_clmulepi64_epi128(pieces, powers, 0x00);
  __m512i second = _mm512_clmulepi64_epi128(pieces, powers, 0x11);
  return _mm512_ternarylogic_epi64(first, second, onto, exclusive_or);
}

WIDE static inline __m512i vector_at(const uint8_t *p) {
  return _mm512_loadu_si512(p);
}

/* The crc of `length` bytes, a multiple of FOLD_BYTES and not 0, continued from crc. */
WIDE static uint64_t folded(uint64_t crc, const uint8_t *p, size_t length) {
  const __m512i far = fold_powers(FAR_FIRST, FAR_SECOND), near = fold_powers(NEAR_FIRST, NEAR_SECOND);
  __m512i a = _mm512_xor_si512(vector_at(p), _mm512_zextsi128_si512(_mm_cvtsi64_si128((long long)crc)));
  __m512i b = vector_at(p + VECTOR_BYTES);
  __m512i c = vector_at(p + 2 * VECTOR_BYTES);
  __m512i d = vector_at(p + 3 * VECTOR_BYTES);
  for (const uint8_t *end = p + length; (p += FOLD_BYTES) < end;) {
    a = fold(a, far, vector_at(p));
    b = fold(b, far, vector_at(p + VECTOR_BYTES));
    c = fold(c, far, vector_at(p + 2 * VECTOR_BYTES));
    d = fold(d, far, vector_at(p + 3 * VECTOR_BYTES));
  }
  uint64_t rest[VECTOR_BYTES / 8];
  _mm512_storeu_si512(rest, fold(fold(fold(a, near, b), near, c), near, d));
  crc = 0;
  for (size_t i = 0; i < VECTOR_BYTES / 8; i++) crc = _mm_crc32_u64(crc, rest[i]);
  return crc;
}

WIDE static uint32_t crc32c_wide(uint32_t seed, const void *bytes, size_t length) {
  const uint8_t *p = bytes;
  uint64_t crc = (uint32_t)~seed;
  size_t whole = length - length % FOLD_BYTES;
  if (whole > 0) crc = folded(crc, p, whole);
  return crc32c_x86(~(uint32_t)crc, p + whole, length - whole);
}

Crc32c crc32c_fastest(void) {
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("vpclmulqdq") && __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul"))
    return crc32c_wide;
  return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul") ? crc32c_x86 : crc32c_portable;
}
#else
Crc32c crc32c_fastest(void) {
  return crc32c_portable;
}
#endif
