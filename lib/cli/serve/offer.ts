/** What a server tells its successor, beside the sockets themselves. The two may be of different versions. */
import { z } from "zod";

/** Changes when an older successor could not understand the offer. */
export const OFFER_VERSION = 1;

const offeredSocket = z.object({
  role: z.enum(["nbd", "admin", "admin-local"]),
  /** As it was asked for, "127.0.0.1:0"; null when the service manager had it. */
  asked: z.string().nullable(),
  /** Where it is: "127.0.0.1:10809", "unix:/run/x.sock". */
  bound: z.string(),
});

export const replacementOffer = z.object({
  offer: z.literal(OFFER_VERSION),
  version: z.string(),
  pid: z.int(),
  /** Real path. */
  device: z.string(),
  /** Of the device. */
  formatVersion: z.int(),
  /** In hex. */
  clusterId: z.string(),
  /** Volumes that anyone may use who can connect. */
  withoutAccessList: z.array(z.string()),
  /** In the order of the descriptors that were sent. */
  sockets: z.array(offeredSocket),
});

export type ReplacementOffer = z.infer<typeof replacementOffer>;
export type OfferedSocket = z.infer<typeof offeredSocket>;

/** Name of the socket in the data directory at which process `pid` receives descriptors. */
export function boxName(pid: number): string {
  return `replace.${pid}.sock`;
}
