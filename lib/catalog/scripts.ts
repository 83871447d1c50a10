/**
 * Lua scripts. Each changes the keys of one hash slot, and only if the stamp there is the one the caller last
 * wrote: a Redis that lost or regained anything answers STALE and changes nothing. Late commands of a dead
 * process carry its session in the expected stamp, so they change nothing either.
 */
export const STALE = "STALE";

const CHECK_STAMP = `
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return '${STALE}' end
redis.call('SET', KEYS[1], ARGV[2])`;

/**
 * Changes one index bucket. KEYS stamp, buckets, bucket. ARGV expected stamp, new stamp, bucket name, 1 to
 * empty the bucket first, value, number of extents to set, these, then the extents to delete.
 */
const CHANGE_BUCKET = `${CHECK_STAMP}
if ARGV[4] == '1' then redis.call('DEL', KEYS[3]) end
local sets = tonumber(ARGV[6])
for i = 7, 6 + sets do redis.call('HSET', KEYS[3], ARGV[i], ARGV[5]) end
for i = 7 + sets, #ARGV do redis.call('HDEL', KEYS[3], ARGV[i]) end
if redis.call('EXISTS', KEYS[3]) == 1 then redis.call('SADD', KEYS[2], ARGV[3])
else redis.call('SREM', KEYS[2], ARGV[3]) end
return 'OK'`;

/** Replaces the volume record. KEYS stamp, record. ARGV expected stamp, new stamp, field, value, … */
const PUT_RECORD = `${CHECK_STAMP}
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[2], unpack(ARGV, 3))
return 'OK'`;

/**
 * Replaces the list of volumes. KEYS identity, volumes, names. ARGV store, session, expected serial, new
 * serial, id, name, …
 */
const PUT_CATALOGUE = `
local found = redis.call('HMGET', KEYS[1], 'store', 'session', 'serial')
if found[1] ~= ARGV[1] or found[2] ~= ARGV[2] or found[3] ~= ARGV[3] then return '${STALE}' end
redis.call('HSET', KEYS[1], 'serial', ARGV[4])
redis.call('DEL', KEYS[2], KEYS[3])
for i = 5, #ARGV, 2 do
  redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
  redis.call('HSET', KEYS[3], ARGV[i + 1], ARGV[i])
end
return 'OK'`;

/**
 * Takes the catalogue for a session unless another store's mirror is here. KEYS identity. ARGV store,
 * schema, session. Returns the store that is there when it is another one, else OK.
 */
const CLAIM = `
local store = redis.call('HGET', KEYS[1], 'store')
if store and store ~= ARGV[1] then return store end
redis.call('HSET', KEYS[1], 'store', ARGV[1], 'schema', ARGV[2], 'session', ARGV[3], 'serial', '0')
return 'OK'`;

/**
 * Appends events. KEYS events. ARGV id that the stream is expected to end with ("0-0": empty), entries to
 * keep, then id, kind, volume, text of each.
 */
const APPEND_EVENTS = `
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
if (last[1] and last[1][1] or '0-0') ~= ARGV[1] then return '${STALE}' end
for i = 3, #ARGV, 4 do
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], ARGV[i],
    'kind', ARGV[i + 1], 'volume', ARGV[i + 2], 'text', ARGV[i + 3])
end
return 'OK'`;

/**
 * Takes the catalogue as CLAIM does, but only from a session that has stood still. KEYS identity. ARGV store, schema,
 * session, "session beat" as it was found before ("" for never). Returns "HELD session beat" when somebody else goes on.
 */
const CLAIM_SHARED = `
local found = redis.call('HMGET', KEYS[1], 'store', 'session', 'beat')
if found[1] and found[1] ~= ARGV[1] then return found[1] end
if found[2] then
  local held = found[2] .. ' ' .. (found[3] or '0')
  if held ~= ARGV[4] then return 'HELD ' .. held end
end
redis.call('HSET', KEYS[1], 'store', ARGV[1], 'schema', ARGV[2], 'session', ARGV[3], 'serial', '0', 'beat', '0')
return 'OK'`;

/** Shows the others that a session goes on. KEYS identity. ARGV store, session. */
const BEAT = `
local found = redis.call('HMGET', KEYS[1], 'store', 'session')
if found[1] ~= ARGV[1] or found[2] ~= ARGV[2] then return '${STALE}' end
redis.call('HINCRBY', KEYS[1], 'beat', 1)
return 'OK'`;

/**
 * Appends events of one gateway of several, whose ids are in no order with the others': the stream gets ids of its own.
 * KEYS events, cursors. ARGV gateway, its cursor as it was found ("": none), entries to keep, then id, kind, volume,
 * text of each.
 */
const APPEND_OWN_EVENTS = `
if (redis.call('HGET', KEYS[2], ARGV[1]) or '') ~= ARGV[2] then return '${STALE}' end
for i = 4, #ARGV, 4 do
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[3], '*', 'gateway', ARGV[1], 'id', ARGV[i],
    'kind', ARGV[i + 1], 'volume', ARGV[i + 2], 'text', ARGV[i + 3])
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[i])
end
return 'OK'`;

export const HELD = "HELD ";

export const SCRIPTS = {
  laminaChangeBucket: { lua: CHANGE_BUCKET, numberOfKeys: 3 },
  laminaPutRecord: { lua: PUT_RECORD, numberOfKeys: 2 },
  laminaPutCatalogue: { lua: PUT_CATALOGUE, numberOfKeys: 3 },
  laminaAppendEvents: { lua: APPEND_EVENTS, numberOfKeys: 1 },
  laminaClaimShared: { lua: CLAIM_SHARED, numberOfKeys: 1 },
  laminaBeat: { lua: BEAT, numberOfKeys: 1 },
  laminaAppendOwnEvents: { lua: APPEND_OWN_EVENTS, numberOfKeys: 2 },
  laminaClaim: { lua: CLAIM, numberOfKeys: 1 },
} as const;
