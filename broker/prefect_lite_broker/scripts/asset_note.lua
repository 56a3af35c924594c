#!lua
-- Notes what a run has made or read, for those that take its result. A script, as a server without memory
-- refuses it for good, where a plain command would be repeated until there is room.
-- KEYS  1 prefix
-- ARGV  1 run id, 2 keys of assets (msgpack), 3 ms for which it stays
-- Returns 1. O(length)
redis.call('SET', KEYS[1] .. 'made:' .. ARGV[1], ARGV[2], 'PX', ARGV[3])
return 1
