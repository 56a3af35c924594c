#!lua flags=allow-oom
-- The worker's connection broke: it has until now + grace to come back.
-- KEYS  1 prefix
-- ARGV  1 session, 2 epoch, 3 grace ms
-- Returns o ok, m moved, u unknown. O(log sessions).
--@include base
local epoch = call('HGET', P .. 's:' .. ARGV[1], 'e')
if not epoch then return 'u' end
if epoch ~= ARGV[2] then return 'm' end
call('ZADD', P .. 'sessions', 'XX', now + ARGV[3], ARGV[1])
return 'o'
