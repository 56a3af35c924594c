#!lua flags=allow-oom
-- Makes a session that may hold leases.
-- KEYS  1 prefix
-- ARGV  1 session, 2 digest of its secret, 3 packed info, 4 lease ms
-- Returns its epoch. O(1).
--@include base
local sk = P .. 's:' .. ARGV[1]
-- A late copy of this call must not set back the epoch of a session that was resumed since.
if call('HSETNX', sk, 'e', 1) == 0 then return tonumber(call('HGET', sk, 'e')) end
call('HSET', sk, 'n', 0, 'd', ARGV[2], 'i', ARGV[3], 'at', now)
call('ZADD', P .. 'sessions', now + ARGV[4], ARGV[1])
return 1
