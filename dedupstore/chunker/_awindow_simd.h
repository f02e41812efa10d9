/* The kernels of _awindow.c that use a CPU's AES instructions; part of that file, included once.
 *
 * Each is a scan_function: it keeps LANES vectors in flight, takes the least of their values, and looks
 * for the position only where that least value is low enough. They are written out one by one, because
 * compilers lower a common source for several vector widths badly. All are bound by the AES unit and
 * not by loads: so the windows are loaded one by one, overlapping, which needs no shuffles and reads
 * no byte outside them.
 */
#define LANES 8                     /* AES states in flight: enough to hide the latency of one round */
#define AHEAD 512                   /* bytes; asking the cache early is worth 30 % on data in DRAM */

#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* ---- x86-64. A vector of 16 * q bytes holds q blocks, each 16 bytes on from the one before, so
 * 16 vectors loaded from consecutive addresses hold the blocks of 16 * q consecutive positions. ---- */

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

/* VEX-coded on purpose: legacy AES-NI code after 256- or 512-bit code runs at half speed. */
#define TARGET_AESNI __attribute__((target("avx,aes")))
#define TARGET_VAES256 __attribute__((target("avx2,vaes,aes")))
#define TARGET_VAES512 __attribute__((target("avx512f,vaes,aes")))
#define LOAD128(at) _mm_loadu_si128((const __m128i *)(at))
#define LOAD256(at) _mm256_loadu_si256((const __m256i *)(at))

TARGET_AESNI static uint32_t value_aesni(const uint8_t *schedule, const uint8_t *at)
{
    const uint8_t *newer = at - (BLOCK - 1);
    __m128i s = _mm_xor_si128(_mm_xor_si128(LOAD128(newer), LOAD128(newer - LAG)), LOAD128(schedule));
    for (int round = 1; round < ROUNDS; round++)
        s = _mm_aesenc_si128(s, LOAD128(schedule + BLOCK * round));
    s = _mm_aesenclast_si128(s, LOAD128(schedule + BLOCK * ROUNDS));
    return (uint32_t)_mm_cvtsi128_si32(s);
}

TARGET_AESNI static size_t scan_aesni_single(const uint8_t *schedule, const uint8_t *chunk, size_t from,
                                             size_t to, uint32_t below)
{
    for (; from < to; from++)
        if (value_aesni(schedule, chunk + from) < below)
            return from;
    return to;
}

TARGET_AESNI static size_t scan_aesni(const uint8_t *schedule, const uint8_t *chunk, size_t from, size_t to,
                                      uint32_t below)
{
    __m128i key[ROUNDS + 1];
    UNROLL
    for (int round = 0; round <= ROUNDS; round++)
        key[round] = LOAD128(schedule + BLOCK * round);
    for (; to - from >= LANES; from += LANES) {
        const uint8_t *newer = chunk + from - (BLOCK - 1), *older = newer - LAG;
        __m128i s[LANES], least = _mm_set1_epi32(-1);
        _mm_prefetch((const char *)newer + AHEAD, _MM_HINT_T0);
        UNROLL
        for (int i = 0; i < LANES; i++)
            s[i] = _mm_xor_si128(_mm_xor_si128(LOAD128(newer + i), LOAD128(older + i)), key[0]);
        UNROLL
        for (int round = 1; round < ROUNDS; round++)
            UNROLL
            for (int i = 0; i < LANES; i++)
                s[i] = _mm_aesenc_si128(s[i], key[round]);
        UNROLL
        for (int i = 0; i < LANES; i++)
            least = _mm_min_epu32(least, _mm_aesenclast_si128(s[i], key[ROUNDS]));
        if ((uint32_t)_mm_cvtsi128_si32(least) < below) {
            size_t hit = scan_aesni_single(schedule, chunk, from, from + LANES, below);
            if (hit < from + LANES)
                return hit;
        }
    }
    return scan_aesni_single(schedule, chunk, from, to, below);
}

TARGET_VAES256 static size_t scan_vaes256(const uint8_t *schedule, const uint8_t *chunk, size_t from,
                                          size_t to, uint32_t below)
{
    const __m256i most = _mm256_set1_epi32((int)(below - 1));
    __m256i key[ROUNDS + 1];
    UNROLL
    for (int round = 0; round <= ROUNDS; round++)
        key[round] = _mm256_broadcastsi128_si256(LOAD128(schedule + BLOCK * round));
    for (; to - from >= sizeof(__m256i); from += sizeof(__m256i)) {
        const uint8_t *newer = chunk + from - (BLOCK - 1);
        __m256i least = _mm256_set1_epi32(-1);
        _mm_prefetch((const char *)newer + AHEAD, _MM_HINT_T0);
        for (const uint8_t *stop = newer + BLOCK; newer < stop; newer += LANES) {
            const uint8_t *older = newer - LAG;
            __m256i s[LANES];
            UNROLL
            for (int i = 0; i < LANES; i++)
                s[i] = _mm256_xor_si256(_mm256_xor_si256(LOAD256(newer + i), LOAD256(older + i)), key[0]);
            UNROLL
            for (int round = 1; round < ROUNDS; round++)
                UNROLL
                for (int i = 0; i < LANES; i++)
                    s[i] = _mm256_aesenc_epi128(s[i], key[round]);
            UNROLL
            for (int i = 0; i < LANES; i++)
                least = _mm256_min_epu32(least, _mm256_aesenclast_epi128(s[i], key[ROUNDS]));
        }
        /* There is no unsigned compare before AVX-512: x < below is min(x, below - 1) == x. */
        least = _mm256_cmpeq_epi32(_mm256_min_epu32(least, most), least);
        if (_mm256_movemask_ps(_mm256_castsi256_ps(least)) & 0x11) {    /* first word of each block */
            size_t hit = scan_aesni(schedule, chunk, from, from + sizeof(__m256i), below);
            if (hit < from + sizeof(__m256i))
                return hit;
        }
    }
    return scan_aesni(schedule, chunk, from, to, below);
}

TARGET_VAES512 static size_t scan_vaes512(const uint8_t *schedule, const uint8_t *chunk, size_t from,
                                          size_t to, uint32_t below)
{
    const __m512i limit = _mm512_set1_epi32((int)below);
    __m512i key[ROUNDS + 1];
    UNROLL
    for (int round = 0; round <= ROUNDS; round++)
        key[round] = _mm512_broadcast_i32x4(LOAD128(schedule + BLOCK * round));
    for (; to - from >= sizeof(__m512i); from += sizeof(__m512i)) {
        const uint8_t *newer = chunk + from - (BLOCK - 1);
        __m512i least = _mm512_set1_epi32(-1);
        _mm_prefetch((const char *)newer + AHEAD, _MM_HINT_T0);
        for (const uint8_t *stop = newer + BLOCK; newer < stop; newer += LANES) {
            const uint8_t *older = newer - LAG;
            __m512i s[LANES];
            UNROLL
            for (int i = 0; i < LANES; i++)     /* 0x96: exclusive or of all three */
                s[i] = _mm512_ternarylogic_epi32(_mm512_loadu_si512(newer + i), _mm512_loadu_si512(older + i),
                                                 key[0], 0x96);
            UNROLL
            for (int round = 1; round < ROUNDS; round++)
                UNROLL
                for (int i = 0; i < LANES; i++)
                    s[i] = _mm512_aesenc_epi128(s[i], key[round]);
            UNROLL
            for (int i = 0; i < LANES; i++)
                least = _mm512_min_epu32(least, _mm512_aesenclast_epi128(s[i], key[ROUNDS]));
        }
        if (_mm512_cmplt_epu32_mask(least, limit) & 0x1111) {   /* first word of each block */
            size_t hit = scan_aesni(schedule, chunk, from, from + sizeof(__m512i), below);
            if (hit < from + sizeof(__m512i))
                return hit;
        }
    }
    return scan_aesni(schedule, chunk, from, to, below);
}

static int usable_aesni(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("aes") && __builtin_cpu_supports("avx");
}

static int usable_vaes256(void)
{
    return usable_aesni() && __builtin_cpu_supports("vaes") && __builtin_cpu_supports("avx2");
}

static int usable_vaes512(void)
{
    return usable_vaes256() && __builtin_cpu_supports("avx512f");
}
#define HAVE_X86_KERNELS 1
#endif

/* ---- 64-bit ARM with the AES extension ---- */

#if defined(__aarch64__) && defined(__GNUC__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ && \
    (defined(__ARM_FEATURE_AES) || defined(__linux__))
#include <arm_neon.h>
#if defined(__ARM_FEATURE_AES)      /* the whole build asks for it: the baseline on Apple's CPUs */
#define TARGET_NEON
#else
#include <sys/auxv.h>
#define HAVE_AUXV 1
#define TARGET_NEON __attribute__((target("+crypto")))
#endif

TARGET_NEON static size_t scan_neon(const uint8_t *schedule, const uint8_t *chunk, size_t from, size_t to,
                                    uint32_t below)
{
    uint8x16_t key[ROUNDS + 1];
    UNROLL
    for (int round = 0; round <= ROUNDS; round++)
        key[round] = vld1q_u8(schedule + BLOCK * round);
    for (; to - from >= LANES; from += LANES) {
        const uint8_t *newer = chunk + from - (BLOCK - 1), *older = newer - LAG;
        uint8x16_t s[LANES];
        uint32x4_t least = vdupq_n_u32(UINT32_MAX);
        UNROLL
        for (int i = 0; i < LANES; i++)
            s[i] = veorq_u8(vld1q_u8(newer + i), vld1q_u8(older + i));
        /* AESE adds the round key first, where x86 adds it last: the same steps, cut elsewhere. */
        UNROLL
        for (int round = 0; round < ROUNDS - 1; round++)
            UNROLL
            for (int i = 0; i < LANES; i++)
                s[i] = vaesmcq_u8(vaeseq_u8(s[i], key[round]));
        UNROLL
        for (int i = 0; i < LANES; i++) {
            s[i] = veorq_u8(vaeseq_u8(s[i], key[ROUNDS - 1]), key[ROUNDS]);
            least = vminq_u32(least, vreinterpretq_u32_u8(s[i]));
        }
        if (vgetq_lane_u32(least, 0) < below) {
            size_t hit = scan_portable(schedule, chunk, from, from + LANES, below);
            if (hit < from + LANES)
                return hit;
        }
    }
    return scan_portable(schedule, chunk, from, to, below);
}

static int usable_neon(void)
{
#if defined(HAVE_AUXV)
    return (getauxval(AT_HWCAP) & (1UL << 3)) != 0;     /* HWCAP_AES */
#else
    return 1;
#endif
}
#define HAVE_NEON_KERNEL 1
#endif
