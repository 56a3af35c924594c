-- Forgets a dead run's body; its record stays for the usual time.
-- KEYS  1 prefix
-- ARGV  1 run id, 2 record ttl ms
-- Returns 1, or 0 when it is not among the dead. O(log dead runs).
--@include base
local run = ARGV[1]
if call('ZREM', P .. 'dead', run) == 0 then return 0 end
call('UNLINK', P .. 'b:' .. run)
call('PEXPIRE', P .. 'r:' .. run, ARGV[2])
return 1
