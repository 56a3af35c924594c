#!lua flags=allow-oom
-- Renews a session's lease and compares what the worker believes it holds with the truth.
-- KEYS  1 prefix
-- ARGV  1 session, 2 epoch, 3 lease ms, then pairs: run id, token
-- Returns {status o|m|u, number of revoked pairs, revoked run id, token, ..., cancelling run id, token, ...}
-- O(held runs).
--@include base
local session, hk = ARGV[1], P .. 'h:' .. ARGV[1]
local epoch = call('HGET', P .. 's:' .. session, 'e')
if not epoch then return { 'u', 0 } end
if epoch ~= ARGV[2] then return { 'm', 0 } end
call('ZADD', P .. 'sessions', 'XX', now + ARGV[3], session)
local out, revoked, runs = { 'o', 0 }, 0, {}
for i = 4, #ARGV, 2 do
  runs[#runs + 1] = ARGV[i]
end
if #runs > 0 then
  for i, token in ipairs(call('HMGET', hk, unpack(runs))) do
    if token ~= ARGV[2 + i * 2 + 1] then
      revoked = revoked + 1
      out[#out + 1], out[#out + 2] = runs[i], ARGV[2 + i * 2 + 1]
    end
  end
end
out[2] = revoked
for _, word in ipairs(call('HGETALL', P .. 'c:' .. session)) do
  out[#out + 1] = word
end
return out
