#!lua flags=allow-oom
-- Removes what has outlived its use: dead runs over the limit, index entries of lists that are gone, and
-- ids of ended runs at the heads of ready lists, which else count as waiting until a claim meets them.
-- KEYS  1 prefix
-- ARGV  1 most dead runs, 2 record ttl ms, 3 limit
-- Returns {more 0|1, how many entries were removed}. O(limit).
--@include base
--@include burial
local most, ttl, limit = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local removed, left = 0, limit
local over = call('ZCARD', P .. 'dead') - most
if over > 0 then
  for i, run in ipairs(call('ZPOPMIN', P .. 'dead', math.min(over, limit))) do
    if i % 2 == 1 then
      bury(run, ttl)
      removed = removed + 1
    end
  end
end
-- At random: with more lists than the limit, each has its turn.
for _, q in ipairs(call('ZRANDMEMBER', P .. 'open', limit)) do
  local list = P .. 'ready:' .. q
  local head = call('LINDEX', list, 0)
  while head and left > 0 and call('HGET', P .. 'r:' .. head, 'st') ~= 'R' do
    call('LPOP', list)
    left = left - 1
    head = call('LINDEX', list, 0)
  end
  if not head then removed = removed + call('ZREM', P .. 'open', q) end
end
return { (left <= 0 or over > limit) and 1 or 0, removed + limit - left }
