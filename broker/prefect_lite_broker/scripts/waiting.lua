#!lua flags=no-writes
-- How many runs of one shard wait: ready and delayed ones, and those that wait for other runs.
-- KEYS  1 prefix
-- Returns the number.
-- O(ready lists), a microsecond each.
--@include base
local count = call('ZCARD', P .. 'delayed') + call('ZCARD', P .. 'blocked')
for _, q in ipairs(call('ZRANGE', P .. 'open', 0, -1)) do
  count = count + call('LLEN', P .. 'ready:' .. q)
end
return count
