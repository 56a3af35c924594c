#!lua flags=allow-oom
-- Holds a lock for longer.
-- KEYS  1 prefix
-- ARGV  1 key, 2 holder, 3 ms from now after which it is free
-- Returns 1, or 0 when the holder does not have it. O(1)
local k = KEYS[1] .. 'lock:' .. ARGV[1]
if redis.call('HGET', k, 'h') ~= ARGV[2] then return 0 end
redis.call('PEXPIRE', k, ARGV[3])
return 1
