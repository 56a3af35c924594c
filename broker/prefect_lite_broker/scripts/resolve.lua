#!lua flags=allow-oom
-- Tells blocked runs how one of those they wait for ended. The last one makes a run ready or delayed; one that
-- had to be COMPLETED and is not ends it at once.
-- KEYS  1 prefix
-- ARGV  1 sender of the hints or '-', 2 record ttl ms, 3 idempotency ms, then three per pair: child, parent,
--       outcome: its state letter and name, u: unknown, w: it waits for the child
-- Returns per pair {word, text, state}; word
--       w it waits for others, or has become ready before; r it is ready (text: its task key);
--       d it is delayed (text: ms); f it has just ended (state); e it does not need the parent (any more)
-- A pair that is resolved already changes nothing. O(pairs).
--@include base
--@include states
--@include ready
--@include hints
--@include closing
--@include state
local sender, ttl, keep = ARGV[1], ARGV[2], ARGV[3]
local out, ended, queues, keys = {}, {}, {}, {}

local function sentence(parent, outcome)
  if outcome == 'u' then return 'Run ' .. parent .. ', which this one waited for, is unknown.' end
  if outcome == 'w' then return 'Run ' .. parent .. ', which this one waited for, waits for this one.' end
  return 'Run ' .. parent .. ', which this one waited for, ended as ' .. string.sub(outcome, 2) .. '.'
end

local function fail(run, op, message)
  local rk = P .. 'r:' .. run
  local life = close_options(run, op, ttl, keep)
  call('HSET', rk, 'st', 'f', 'e', now, 'nm', 'UpstreamFailed', 'ms', message)
  call('UNLINK', P .. 'b:' .. run)
  if life then call('PEXPIRE', rk, life) end
  ended[#ended + 1] = run
  return { 'f', '', state_of(run) }
end

local function open(run, q, due)
  local rk = P .. 'r:' .. run
  call('ZREM', P .. 'blocked', run)
  call('HDEL', rk, 'dl')
  if due and due > now then
    call('HSET', rk, 'st', 'D')
    call('ZADD', P .. 'delayed', due, run)
    return { 'd', due - now, '' }
  end
  call('HSET', rk, 'st', 'R')
  local ids = queues[q] or {}
  ids[#ids + 1] = run
  queues[q] = ids
  return { 'r', string.sub(q, 1, -3), '' }
end

local function resolve(run, parent, outcome)
  local rk, dk = P .. 'r:' .. run, P .. 'deps:' .. run
  local v = call('HMGET', rk, 'st', 'd', 'op', 'du', 'dl')
  local kind = call('HGET', dk, parent)
  if not kind or not v[1] or TERMINAL[v[1]] then return { 'e', '', '' } end
  local _, q = cut(v[2])
  -- Ready already: a repeat, perhaps of a call whose answer got lost.
  if v[1] ~= 'B' then return v[1] == 'R' and { 'r', string.sub(q, 1, -3), '' } or { 'w', '', '' } end
  if kind == '' then return { 'w', '', '' } end
  if kind == 's' and string.sub(outcome, 1, 1) ~= 'c' then return fail(run, v[3], sentence(parent, outcome)) end
  call('HSET', dk, parent, '')
  local left = v[5] - 1
  if left <= 0 then return open(run, q, tonumber(v[4])) end
  call('HSET', rk, 'dl', left)
  return { 'w', '', '' }
end

for i = 4, #ARGV, 3 do
  out[#out + 1] = resolve(ARGV[i], ARGV[i + 1], ARGV[i + 2])
end
for q, ids in pairs(queues) do
  push(q, ids)
  keys[#keys + 1] = string.sub(q, 1, -3)
end
if sender ~= '-' then
  hint(sender, 'r', keys)
  hint(sender, 'e', ended)
end
return out
