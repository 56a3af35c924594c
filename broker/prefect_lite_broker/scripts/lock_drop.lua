#!lua flags=allow-oom
-- Lets go of a lock. The mark of the question stays for a while, so that it has the same answer when it is
-- asked again, whoever has taken the lock meanwhile: even the same holder, who must not lose it by that.
-- KEYS  1 prefix
-- ARGV  1 key, 2 holder, 3 mark ('': none), 4 ms for which the mark stays
-- Returns 1, or 0 when the holder did not have it. O(1)
local k, mark = KEYS[1] .. 'lock:' .. ARGV[1], ARGV[3]
local v = redis.call('HMGET', k, 'h', 'm')
if mark ~= '' and v[2] == mark then return 1 end
if v[1] ~= ARGV[2] then return 0 end
if mark == '' then
  redis.call('DEL', k)
else
  redis.call('HDEL', k, 'h')
  redis.call('HSET', k, 'm', mark)
  redis.call('PEXPIRE', k, ARGV[4])
end
return 1
