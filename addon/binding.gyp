{
  "variables": { "sanitize%": "" },
  "targets": [
    {
      "target_name": "lamina_uring",
      "sources": [
        "src/module.c",
        "src/values.c",
        "src/memory.c",
        "src/ring.c",
        "src/file.c",
        "src/socket.c",
        "src/datagram.c",
        "src/bell.c",
        "src/checksums.c",
        "src/crc32c.c",
        "src/constants.c",
      ],
      "defines": ["NAPI_VERSION=8", "_GNU_SOURCE"],
      "cflags": ["-std=gnu11", "-O2", "-g", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror"],
      "conditions": [
        [
          "sanitize=='address'",
          {
            "cflags": ["-fsanitize=address", "-fno-omit-frame-pointer"],
            "ldflags": ["-fsanitize=address"],
          },
        ],
      ],
    }
  ],
}
