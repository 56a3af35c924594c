#!lua flags=allow-oom
-- Ends a session on purpose: what it holds goes back unharmed, at most 100 runs a call.
-- KEYS  1 prefix
-- ARGV  1 session, 2 epoch, 3 record ttl ms, 4 idempotency ms
-- Returns {more 0|1, task keys that have work again ...}; an unknown or moved session gives {0}.
-- O(held runs).
--@include base
--@include states
--@include ready
--@include hints
--@include closing
--@include ending
--@include release
local session, ttl, keep = ARGV[1], ARGV[3], ARGV[4]
local sk, hk = P .. 's:' .. session, P .. 'h:' .. session
if call('HGET', sk, 'e') ~= ARGV[2] then return { 0 } end
local held, out, seen, gone, ended = call('HRANDFIELD', hk, 100, 'WITHVALUES'), { 0 }, {}, {}, {}
for i = 1, #held, 2 do
  local run, token = held[i], held[i + 1]
  local v = call('HMGET', P .. 'r:' .. run, 'st', 't', 'd', 'su', 'op')
  gone[#gone + 1] = run
  if v[2] == token and LEASED[v[1]] then
    if give_back(run, token, v[1], v[3], v[4], v[5], ttl, keep) then
      local _, q = cut(v[3])
      seen[string.sub(q, 1, -3)] = true
    else
      ended[#ended + 1] = run
    end
  end
end
if #gone > 0 then
  call('HDEL', hk, unpack(gone))
  call('HDEL', P .. 'c:' .. session, unpack(gone))
end
if call('EXISTS', hk) == 1 then
  out[1] = 1
else
  call('DEL', sk, P .. 'c:' .. session)
  call('ZREM', P .. 'sessions', session)
end
for key in pairs(seen) do
  out[#out + 1] = key
end
local keys = {}
for i = 2, #out do
  keys[i - 1] = out[i]
end
hint('', 'r', keys)
hint('', 'e', ended)
return out
