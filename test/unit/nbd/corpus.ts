/**
 * Byte streams worth keeping: conversations of real clients, attacks that broke other servers, and every
 * input on which one of our machines once failed. Each is replayed whole and byte by byte.
 */
export const CORPUS: Readonly<Record<string, string>> = {
  // Client flags 3, GO "" without infos, a 4 KiB read: what nbd-client says.
  "nbd-client":
    "00000003 49484156454f5054 00000007 00000006 00000000 0000 25609513 0000 0000 0000000000000001 0000000000000000 00001000",
  // EXPORT_NAME without fixed newstyle.
  "oldest newstyle client": "00000000 49484156454f5054 00000001 00000003 766f6c",
  // CVE-2022-26495: GO whose name claims 2^32 − 1 bytes.
  "GO with name length 2^32 - 1": "00000003 49484156454f5054 00000007 00000006 ffffffff 0000",
  // CVE-2021-3716: STRUCTURED_REPLY, STARTTLS and a GO behind it in plaintext.
  "STARTTLS injection":
    "00000003 49484156454f5054 00000008 00000000 49484156454f5054 00000005 00000000 49484156454f5054 00000007 00000006 00000000 0000",
  // CVE-2017-15119: an option that announces 4 GiB.
  "option of 4 GiB": "00000003 49484156454f5054 00000063 ffffffff",
  // A WRITE of 4 GiB − 1 behind a good handshake.
  "write of 4 GiB - 1":
    "00000003 49484156454f5054 00000007 00000006 00000000 0000 25609513 0000 0001 0000000000000001 0000000000000000 ffffffff",
  // FAST_ZERO and every other flag on WRITE_ZEROES: aborted nbdkit 1.32.5.
  "zero with all flags":
    "00000003 49484156454f5054 00000007 00000006 00000000 0000 25609513 ffff 0006 0000000000000001 0000000000000000 00001000",
  // CVE-2025-47711: BLOCK_STATUS of 2^32 − 1 bytes.
  "largest block status":
    "00000003 49484156454f5054 00000008 00000000 49484156454f5054 00000007 00000006 00000000 0000 25609513 0000 0007 0000000000000001 0000000000000000 ffffffff",
  // A web browser.
  "HTTP instead of NBD": "474554202f20485454502f312e310d0a0d0a",
};
