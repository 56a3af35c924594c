#!lua flags=allow-oom
-- Makes a dead run ready again under its id, with a clean count of lost leases.
-- KEYS  1 prefix
-- ARGV  1 run id, 2 a word of this request's own
-- Returns 1, or 0 when it is not among the dead; a repeat of the request gets the same. O(log dead runs).
--@include base
--@include ready
--@include hints
local run = ARGV[1]
local rk = P .. 'r:' .. run
if call('ZREM', P .. 'dead', run) == 0 then return call('HGET', rk, 'rq') == ARGV[2] and 1 or 0 end
local v = call('HMGET', rk, 'd', 'op')
if not v[1] then return 0 end
if v[2] then
  -- It was accepted once and is wanted again: no longer bound by its expiry.
  local o = cmsgpack.unpack(v[2])
  o.x = nil
  if o.i then call('PERSIST', P .. 'idem:' .. o.i) end
  if next(o) then call('HSET', rk, 'op', cmsgpack.pack(o)) else call('HDEL', rk, 'op') end
end
call('HDEL', rk, 'e', 'l', 'nm', 'ms', 'su', 't', 'ct', 'lw')
call('HSET', rk, 'st', 'R', 'rq', ARGV[2])
local _, q = cut(v[1])
push(q, { run })
hint('', 'r', { string.sub(q, 1, -3) })
return 1
