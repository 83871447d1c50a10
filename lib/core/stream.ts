/**
 * A connected byte stream: TCP, unix socket or TLS. Implemented by lib/uring on ring sockets, on node:net
 * and node:tls, and by the simulator's network.
 *
 * Completions arrive from the engine's batch, never from inside the call that asked. Buffers named in a
 * request belong to the stream until its completion, also after `close`.
 */
export interface ByteStream {
  readonly peer: PeerAddress;
  /** Of an encrypted stream: bytes that only its two ends can know, and that no other stream has. */
  readonly channelBinding?: Uint8Array | null;
  /** Why it broke, in a few words, if it can say. */
  readonly fault?: string | null;
  setListener(listener: StreamListener): void;
  /**
   * Up to `length` bytes into memory at `offset`. One at a time. Completion: `streamReceived`. `whole`: fewer are of no
   * use yet, so a stream that can waits for all of them, or for the end of the stream.
   */
  receive(offset: number, length: number, whole?: boolean): void;
  /**
   * Sends `count` pieces, given as (offset, length) pairs in `pieces`, in order and whole. One at a time.
   * `pieces` may be reused on return; the memory it names may not until `streamSent`. `count` ≤ 512.
   */
  send(pieces: Uint32Array, count: number): void;
  /**
   * Whether the peer has hung up or ended its side, even if bytes it sent before have not been received.
   * A stream that cannot tell leaves it out.
   */
  peerGone?(): boolean;
  /** No more will be sent; the peer sees the end of the stream. */
  shutdown(): void;
  /**
   * Ends the stream. Requests in flight complete (with an error or not), then `streamClosed` is called once;
   * after it the stream touches no memory.
   */
  close(): void;
}

export interface StreamListener {
  /** `result` > 0: bytes; 0: the peer has ended its side; < 0: −errno, the stream is dead. */
  streamReceived(result: number): void;
  /** `result` ≥ 0: everything was taken; < 0: −errno, the stream is dead. */
  streamSent(result: number): void;
  streamClosed(): void;
}

export interface PeerAddress {
  readonly family: "tcp" | "unix";
  /** Text of the address without port; empty for unix. IPv4-mapped IPv6 is given as IPv4. */
  readonly host: string;
  readonly port: number;
}
