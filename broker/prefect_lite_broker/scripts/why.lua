#!lua flags=no-writes
-- What a run is waiting for.
-- KEYS  1 prefix
-- ARGV  1 run id
-- Returns {state, place in its list from 0 or -1, length of the list, now ms, lane, number of runs it waits for,
--       the first few of them ...}; {} when unknown.
-- O(100,000) at most: the place is looked for that far from the head; O(parents) of a blocked run.
--@include base
--@include states
--@include ready
--@include state
local state = state_of(ARGV[1])
if not state[1] then return {} end
local place, length, lane, parents = -1, 0, '', { 0 }
if state[1] == 'R' then
  local _, q = cut(state[2])
  q = lane_of(q, call('HGET', P .. 'r:' .. ARGV[1], 'su'))
  lane = string.sub(q, -1)
  length = call('LLEN', P .. 'ready:' .. q)
  place = call('LPOS', P .. 'ready:' .. q, ARGV[1], 'MAXLEN', 100000) or -1
end
if state[1] == 'B' then
  local deps = call('HGETALL', P .. 'deps:' .. ARGV[1])
  for i = 1, #deps, 2 do
    if deps[i + 1] ~= '' then
      parents[1] = parents[1] + 1
      if parents[1] <= 5 then parents[#parents + 1] = deps[i] end
    end
  end
end
return { state, place, length, now, lane, unpack(parents) }
