#!lua flags=allow-oom
-- Takes a lock that is free, or that the holder has.
-- KEYS  1 prefix
-- ARGV  1 key, 2 holder, 3 ms after which it is free again
-- Returns 1, or 0 when somebody else has it. O(1)
local k = KEYS[1] .. 'lock:' .. ARGV[1]
local holder = redis.call('HGET', k, 'h')
if holder and holder ~= ARGV[2] then return 0 end
redis.call('HSET', k, 'h', ARGV[2])
redis.call('PEXPIRE', k, ARGV[3])
return 1
