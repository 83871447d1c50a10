/**
 * What a connection thread tells of itself, in memory that the owner reads whenever somebody asks: no message,
 * no timer. Written at the end of each of its turns, so the numbers of a thread that sleeps are exact.
 */
import type { Engine, EngineStats } from "../../uring/api.js";
import { PLAIN_COUNTERS } from "../counters.js";
import type { GatewayServer, ServerStats } from "../server.js";

/** Places in `Channel.numbers`. */
export const NUMBER = {
  connections: 0,
  handshakes: 1,
  requestsInFlight: 2,
  poolBytesHeld: 3,
  poolBytesLimit: 4,
  waitingForMemory: 5,
  /** Descriptors that were handed over and whose connections are over. */
  connectionsOver: 6,
  poolFreeBytes: 7,
  /** Six numbers of the thread's engine, in the order of ENGINE_NAMES. */
  engine: 8,
  /** The plain counters, in the order of PLAIN_COUNTERS. */
  plain: 14,
} as const;

export const THREAD_NUMBERS: number = NUMBER.plain + PLAIN_COUNTERS.length;

/** Called at the end of every turn: nothing is allocated. */
export function writeNumbers(numbers: Float64Array, server: GatewayServer, engine: Engine): void {
  numbers[NUMBER.connections] = server.connections.size;
  numbers[NUMBER.handshakes] = server.handshakes;
  numbers[NUMBER.requestsInFlight] = server.requestsInFlight;
  numbers[NUMBER.poolBytesHeld] = server.memory.usedBytes;
  numbers[NUMBER.poolBytesLimit] = server.memory.limitBytes;
  numbers[NUMBER.waitingForMemory] = server.memory.waiting;
  numbers[NUMBER.poolFreeBytes] = engine.pool.freeBytes;
  engine.threads?.writeStats(numbers, NUMBER.engine);
  const { counters } = server;
  numbers[NUMBER.connectionsOver] = counters.connectionsOver + counters.connectionsRefused;
  for (let i = 0; i < PLAIN_COUNTERS.length; i++) numbers[NUMBER.plain + i] = counters[PLAIN_COUNTERS[i]!];
}

export function engineStatsOf(numbers: Float64Array): EngineStats {
  const at = NUMBER.engine;
  return {
    enters: numbers[at]!,
    submissions: numbers[at + 1]!,
    completions: numbers[at + 2]!,
    wakeups: numbers[at + 3]!,
    bytesReceived: numbers[at + 4]!,
    bytesSent: numbers[at + 5]!,
  };
}

/** The part of them that GatewayServer.stats() says. */
export function serverStatsOf(numbers: Float64Array): ServerStats {
  return {
    connections: numbers[NUMBER.connections]!,
    handshakes: numbers[NUMBER.handshakes]!,
    requestsInFlight: numbers[NUMBER.requestsInFlight]!,
    poolBytesHeld: numbers[NUMBER.poolBytesHeld]!,
    poolBytesLimit: numbers[NUMBER.poolBytesLimit]!,
    waitingForMemory: numbers[NUMBER.waitingForMemory]!,
  };
}
