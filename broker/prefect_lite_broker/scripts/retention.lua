-- Removes what has outlived its use: dead runs over the limit or without a record, index entries of runs
-- and lists that are gone.
-- KEYS  1 prefix
-- ARGV  1 most dead runs, 2 record ttl ms, 3 limit
-- Returns how many entries were removed. O(limit).
--@include base
local most, ttl, limit = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local removed = 0
local over = call('ZCARD', P .. 'dead') - most
if over > 0 then
  for i, run in ipairs(call('ZPOPMIN', P .. 'dead', math.min(over, limit))) do
    if i % 2 == 1 then
      call('UNLINK', P .. 'b:' .. run)
      call('PEXPIRE', P .. 'r:' .. run, ttl)
      removed = removed + 1
    end
  end
end
for _, q in ipairs(call('ZRANGE', P .. 'open', 0, limit - 1)) do
  if call('EXISTS', P .. 'ready:' .. q) == 0 then removed = removed + call('ZREM', P .. 'open', q) end
end
return removed
