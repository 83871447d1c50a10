/* crc32c (Castagnoli, reflected, inverted): crc32c("123456789") = 0xe3069283. */
#ifndef LAMINA_CRC32C_H
#define LAMINA_CRC32C_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint32_t (*Crc32c)(uint32_t seed, const void *bytes, size_t length);

/* Slicing by 8: any machine. */
uint32_t crc32c_portable(uint32_t seed, const void *bytes, size_t length);
/* The processor's own instruction where there is one, else the portable one. */
Crc32c crc32c_fastest(void);

#endif
