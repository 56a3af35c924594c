#!lua flags=allow-oom
-- Takes a session over for another connection: whoever used it before is fenced by the epoch.
-- KEYS  1 prefix
-- ARGV  1 session, 2 digest of its secret, 3 epoch to set or 0 for the next one, 4 lease ms
-- Returns {epoch, run id, token, ...} or {} when it is unknown, dying, or not proved. O(held runs).
--@include base
local sk = P .. 's:' .. ARGV[1]
local s = call('HMGET', sk, 'e', 'd', 'g')
if not s[1] or s[2] ~= ARGV[2] or s[3] then return {} end
local epoch = tonumber(ARGV[3])
if epoch == 0 then epoch = s[1] + 1 end
if epoch < tonumber(s[1]) then return {} end -- somebody was faster
call('HSET', sk, 'e', epoch, 'n', 0)
call('HDEL', sk, 'b')
call('ZADD', P .. 'sessions', now + ARGV[4], ARGV[1])
local out, held = { epoch }, call('HGETALL', P .. 'h:' .. ARGV[1])
for i = 1, #held do
  out[i + 1] = held[i]
end
return out
