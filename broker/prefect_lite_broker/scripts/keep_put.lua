#!lua
-- Writes an entry, in place of what is there. The mark of a question that was done under a lock stays for a
-- while, so that it has the same answer when it is asked again and the lock is somebody else's by then.
-- KEYS  1 prefix
-- ARGV  1 key, 2 holder that must have the lock of that key ('': nobody need), 3 'f' for a time of its own or
--       's' for one that starts anew when it is read, 4 that time in ms, 5 mark ('': none), 6 ms for which the
--       mark stays, 7 body
-- Returns 1, or 0 when the lock is not (or no longer) the holder's. O(length)
local P, key, fence, kind, ms = KEYS[1], ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local did = fence ~= '' and ARGV[5] ~= '' and P .. 'did:' .. ARGV[5]
if did and redis.call('EXISTS', did) == 1 then return 1 end
if fence ~= '' and redis.call('HGET', P .. 'lock:' .. key, 'h') ~= fence then return 0 end
if kind == 's' then ms = math.ceil(ms * 1.1) end
redis.call('SET', P .. 'keep:' .. key, kind .. ARGV[7], 'PX', ms)
if did then redis.call('SET', did, '1', 'PX', ARGV[6]) end
return 1
