#!lua flags=allow-oom
-- Says which task keys a session executes.
-- KEYS  1 prefix
-- ARGV  1 session, 2 epoch, 3 packed list of task keys
-- Returns o ok, m moved, u unknown. O(1).
--@include base
local sk = P .. 's:' .. ARGV[1]
local epoch = call('HGET', sk, 'e')
if not epoch then return 'u' end
if epoch ~= ARGV[2] then return 'm' end
call('HSET', sk, 'k', ARGV[3])
return 'o'
