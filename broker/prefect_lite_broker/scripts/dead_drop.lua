#!lua flags=allow-oom
-- Forgets a dead run's body; its record stays for the usual time.
-- KEYS  1 prefix
-- ARGV  1 run id, 2 record ttl ms, 3 a word of this request's own
-- Returns 1, or 0 when it is not among the dead; a repeat of the request gets the same. O(log dead runs).
--@include base
--@include burial
local run = ARGV[1]
local rk = P .. 'r:' .. run
if call('ZREM', P .. 'dead', run) == 0 then return call('HGET', rk, 'rq') == ARGV[3] and 1 or 0 end
if call('EXISTS', rk) == 1 then call('HSET', rk, 'rq', ARGV[3]) end
bury(run, ARGV[2])
return 1
