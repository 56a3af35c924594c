#!lua flags=allow-oom
-- Removes a block; marks as in block_put.lua.
-- KEYS  1 prefix
-- ARGV  1 slug/name, 2 mark ('': none), 3 ms for which the mark stays
-- Returns whether it was there, 1 or 0. O(1)
local did = KEYS[1] .. 'did:' .. ARGV[2]
if ARGV[2] ~= '' and redis.call('EXISTS', did) == 1 then return 1 end
if redis.call('HDEL', KEYS[1] .. 'blocks', ARGV[1]) == 0 then return 0 end
if ARGV[2] ~= '' then redis.call('SET', did, '1', 'PX', ARGV[3]) end
return 1
