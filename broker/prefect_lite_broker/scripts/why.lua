#!lua flags=no-writes
-- What a run is waiting for.
-- KEYS  1 prefix
-- ARGV  1 run id
-- Returns {state, place in its list from 0 or -1, length of the list, now ms, lane}; {} when unknown.
-- O(100,000) at most: the place is looked for that far from the head.
--@include base
--@include ready
--@include state
local state = state_of(ARGV[1])
if not state[1] then return {} end
local place, length, lane = -1, 0, ''
if state[1] == 'R' then
  local _, q = cut(state[2])
  q = lane_of(q, call('HGET', P .. 'r:' .. ARGV[1], 'su'))
  lane = string.sub(q, -1)
  length = call('LLEN', P .. 'ready:' .. q)
  place = call('LPOS', P .. 'ready:' .. q, ARGV[1], 'MAXLEN', 100000) or -1
end
return { state, place, length, now, lane }
