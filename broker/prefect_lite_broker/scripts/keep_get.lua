#!lua flags=allow-oom
-- Reads an entry, and keeps it for longer if it has no time of its own.
-- KEYS  1 prefix
-- ARGV  1 key, 2 ms for which it stays at least when nobody reads it, 3 bytes at most
-- Returns the body, its length when that is more than ARGV 3 (it is then to be asked for again), nil without
-- an entry. O(length). A read costs a write only when a tenth of the time is used up.
local k, idle, most = KEYS[1] .. 'keep:' .. ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local size = redis.call('STRLEN', k)
if size == 0 then return false end
if size - 1 > most then return size - 1 end
if redis.call('GETRANGE', k, 0, 0) == 's' and redis.call('PTTL', k) < idle then
  redis.call('PEXPIRE', k, math.ceil(idle * 1.1))
end
return redis.call('GETRANGE', k, 1, -1)
