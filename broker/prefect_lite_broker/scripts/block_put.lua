#!lua
-- Saves a block. The mark of a question that was done stays for a while, so that it has the same answer when
-- it is asked again.
-- KEYS  1 prefix
-- ARGV  1 slug/name, 2 '1' to replace what is there, 3 mark ('': none), 4 ms for which the mark stays,
--       5 blocks at most, 6 document
-- Returns 1; 0 when there is one of this name; -1 when there are too many. O(length)
local blocks, did = KEYS[1] .. 'blocks', KEYS[1] .. 'did:' .. ARGV[3]
if ARGV[3] ~= '' and redis.call('EXISTS', did) == 1 then return 1 end
local there = redis.call('HEXISTS', blocks, ARGV[1]) == 1
if there and ARGV[2] ~= '1' then return 0 end
if not there and redis.call('HLEN', blocks) >= tonumber(ARGV[5]) then return -1 end
redis.call('HSET', blocks, ARGV[1], ARGV[6])
if ARGV[3] ~= '' then redis.call('SET', did, '1', 'PX', ARGV[4]) end
return 1
