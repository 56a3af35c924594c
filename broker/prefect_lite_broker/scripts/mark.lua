#!lua flags=allow-oom
-- Writes something and takes it back, so that WAIT on this connection speaks for all that was written
-- before: it waits for the connection's own last write, and one that is new has made none.
-- KEYS  1 prefix
-- Returns 1. O(1)
local key = KEYS[1] .. 'mark'
redis.call('SET', key, '')
redis.call('DEL', key)
return 1
