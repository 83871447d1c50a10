/**
 * What connection threads and the owner say to each other besides requests: rare things, as messages. Messages of
 * one direction arrive in order. Between messages and requests there is no order, and nothing needs one: a
 * handle is used after it was named, and given back after its last answer.
 */
import type { TlsMode } from "nbd-protocol-ts";
import type { LaminaError } from "../../core/errors.js";
import type { VolumeRecord } from "../../replica/record.js";
import type { EngineOptions } from "../../uring/api.js";
import type { RegistryEvent } from "../../volume/registry-api.js";
import type { TlsCredentials } from "../tls-credentials.js";

/** What a thread is started with. */
export interface ThreadOrder {
  readonly channel: SharedArrayBuffer;
  readonly ownerBell: number;
  readonly engine: EngineOptions;
  readonly records: readonly VolumeRecord[];
  readonly defaultExport: string | undefined;
  readonly tls: { readonly mode: TlsMode; readonly credentials: TlsCredentials } | null;
  readonly connectionsMax: number;
  readonly handshakesMax: number;
}

/** A LaminaError: errors of a class do not travel as such. */
export type Refusal = Pick<LaminaError, "code" | "params">;

export type ToThread =
  /** A connected socket, the thread's from now on. */
  | { readonly kind: "accept"; readonly fd: number }
  | { readonly kind: "event"; readonly event: RegistryEvent }
  | {
      readonly kind: "opened";
      readonly ticket: number;
      readonly handle: number;
      readonly preferredBytes: number;
      readonly record: VolumeRecord;
    }
  | { readonly kind: "refused"; readonly ticket: number; readonly refusal: Refusal }
  /** A connection of another thread comes to the volume: answer "retired" when no older one can act any more. */
  | { readonly kind: "retire"; readonly ticket: number; readonly volume: number }
  /** The answer to "admit". */
  | { readonly kind: "admitted"; readonly ticket: number }
  | { readonly kind: "credentials"; readonly credentials: TlsCredentials }
  /** While closing: every thread has said "quiet". */
  | { readonly kind: "all-quiet" }
  /** End politely; the thread exits when it is done. */
  | { readonly kind: "close" };

export type ToOwner =
  | { readonly kind: "ready"; readonly bell: number }
  | { readonly kind: "open"; readonly ticket: number; readonly name: string }
  | { readonly kind: "release"; readonly handle: number }
  /** A connection comes to the volume: "admitted" when no older one of another thread can act any more. */
  | { readonly kind: "admit"; readonly ticket: number; readonly volume: number }
  | { readonly kind: "retired"; readonly ticket: number }
  /** On the way to its end: no connection of the thread uses a volume any more. */
  | { readonly kind: "drained" }
  /** While closing: nothing but handshakes is left here. */
  | { readonly kind: "quiet" }
  | { readonly kind: "lost"; readonly peer: string; readonly volume: string; readonly reason: string };
