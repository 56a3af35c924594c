#!lua flags=allow-oom
-- Makes delayed runs ready that are due, and ends waiting ones that have expired.
-- KEYS  1 prefix
-- ARGV  1 limit, 2 record ttl ms, 3 idempotency ms
-- Returns {ms until the next one is due (0: there are more now, -1: nothing waits),
--       number of task keys, task keys ..., then per expired run: run id, state}
-- O(runs).
--@include base
--@include states
--@include ready
--@include hints
--@include closing
--@include ending
--@include state
local limit, ttl, keep = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local delayed, expires = P .. 'delayed', P .. 'expires'
local ended, ready, keys = {}, {}, {}

local function expire(run, op)
  end_cancelled(run, op, 'Expired', 'not started before it expired', ttl, keep)
  ended[#ended + 1] = run
end

local due = call('ZRANGE', delayed, '-inf', now, 'BYSCORE', 'LIMIT', 0, limit)
for _, run in ipairs(due) do
  local rk = P .. 'r:' .. run
  local v = call('HMGET', rk, 'st', 'd', 'su', 'op')
  if v[1] == 'D' then
    local o = v[4] and cmsgpack.unpack(v[4])
    if o and o.x and o.x <= now then
      expire(run, v[4])
    else
      local _, q = cut(v[2])
      q = lane_of(q, v[3])
      call('HSET', rk, 'st', 'R')
      local ids = ready[q] or {}
      ids[#ids + 1] = run
      ready[q] = ids
    end
  end
end
if #due > 0 then call('ZREM', delayed, unpack(due)) end
for q, ids in pairs(ready) do
  push(q, ids)
  keys[#keys + 1] = string.sub(q, 1, -3)
end

local old = call('ZRANGE', expires, '-inf', now, 'BYSCORE', 'LIMIT', 0, limit)
for _, run in ipairs(old) do
  local v = call('HMGET', P .. 'r:' .. run, 'st', 'op')
  if v[1] == 'R' or v[1] == 'D' or v[1] == 'B' then
    if v[1] == 'D' then call('ZREM', delayed, run) end
    expire(run, v[2])
  end
end
if #old > 0 then call('ZREM', expires, unpack(old)) end

local next_due = -1
for _, key in ipairs({ delayed, expires }) do
  local first = call('ZRANGE', key, 0, 0, 'WITHSCORES')
  if first[2] then
    local ms = math.max(0, first[2] - now)
    if next_due < 0 or ms < next_due then next_due = ms end
  end
end
hint('', 'r', keys)
hint('', 'e', ended)
local out = { next_due, #keys }
for i, key in ipairs(keys) do
  out[i + 2] = key
end
for _, run in ipairs(ended) do
  out[#out + 1] = run
  out[#out + 1] = state_of(run)
end
return out
