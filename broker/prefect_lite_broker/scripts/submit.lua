-- Stores pending runs, each once, and queues those that are not delayed.
-- KEYS  1 prefix
-- ARGV  1 sender of the hint or '-', 2 longest ready list, then six per run:
--       run id, queue, fingerprint, body, name, options ('' or msgpack map, relative times in ms:
--       c countdown, x expiry, r record ttl, l max lost, i idempotency suffix, z body size, g tags)
-- Returns the number of runs when all are new and accepted, else one word per run:
--       a accepted, e exists, c conflict, f full, 'e'|'c' .. run id (held by an idempotency key)
-- O(runs); one EXISTS, one MSET and one RPUSH per queue for the whole batch, one HSET per run.
--@include base
--@include ready
--@include hints
local sender, longest = ARGV[1], tonumber(ARGV[2])
local rks, n = {}, 0
for i = 3, #ARGV, 6 do
  n = n + 1
  rks[n] = P .. 'r:' .. ARGV[i]
end
local clean = call('EXISTS', unpack(rks)) == 0
local words, plain, seen = {}, true, {}
local blobs, blob_count = {}, 0
local queues, room, names = {}, {}, {}

-- The run that an idempotency key stands for decides; its fingerprint is kept beside the id, because
-- the key outlives the record.
local function holder_of(suffix, run, fp)
  local held = call('GET', P .. 'idem:' .. suffix)
  if not held then
    call('SET', P .. 'idem:' .. suffix, run .. fp)
    return nil
  end
  local other = string.sub(held, 1, 32)
  if other == run then return nil end
  return (string.sub(held, 33) == fp and 'e' or 'c') .. other
end

local at = 3
for i = 1, n do
  local run, q, fp, name, packed = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 4], ARGV[at + 5]
  local rk, word = rks[i], 'a'
  if not clean or seen[run] then
    local old = call('HGET', rk, 'fp')
    if old then word = old == fp and 'e' or 'c' end
  end
  local due, state, o = nil, 'R', nil
  if word == 'a' and packed ~= '' then
    o = cmsgpack.unpack(packed)
    due = o.c and now + o.c
  end
  if word == 'a' and not due then
    local free = room[q]
    if not free then free = longest - call('LLEN', P .. 'ready:' .. q) end
    if free <= 0 then word = 'f' end
    room[q] = free - 1
  end
  if word == 'a' and o and o.i then word = holder_of(o.i, run, fp) or 'a' end
  if word == 'a' then
    seen[run] = true
    if due then state = 'D' end
    if name ~= '' or o then
      local fields = { 'st', state, 'd', now .. ':' .. q, 'fp', fp }
      if name ~= '' then
        fields[7], fields[8] = 'n', name
      end
      if o then
        if o.x then
          o.x = now + o.x
          call('ZADD', P .. 'expires', o.x, run)
        end
        o.c = nil
        if next(o) then
          fields[#fields + 1] = 'op'
          fields[#fields + 1] = cmsgpack.pack(o)
        end
        if due then
          fields[#fields + 1] = 'du'
          fields[#fields + 1] = due
          call('ZADD', P .. 'delayed', due, run)
        end
      end
      call('HSET', rk, unpack(fields))
    else
      call('HSET', rk, 'st', state, 'd', now .. ':' .. q, 'fp', fp)
    end
    blobs[blob_count + 1], blobs[blob_count + 2] = P .. 'b:' .. run, ARGV[at + 3]
    blob_count = blob_count + 2
    if not due then
      local ids = queues[q]
      if not ids then
        ids = {}
        queues[q] = ids
      end
      ids[#ids + 1] = run
    end
  else
    plain = false
  end
  words[i] = word
  at = at + 6
end
if blob_count > 0 then call('MSET', unpack(blobs)) end
for q, ids in pairs(queues) do
  push(q, ids)
  names[#names + 1] = string.sub(q, 1, -3)
end
if sender ~= '-' then hint(sender, 'r', names) end
if plain then return n end
return words
