#!lua flags=no-writes
-- Reads runs.
-- KEYS  1 prefix
-- ARGV  1 bytes of results at most (one larger result goes alone), then run ids
-- Returns per run what lib/state.lua says, or 0 when it is to be asked for again: the answer is full. The
-- first one always gets its answer. O(runs).
--@include base
--@include states
--@include state
local out, left = {}, tonumber(ARGV[1])
for i = 2, #ARGV do
  local state = 0
  if left > 0 then
    state = state_of(ARGV[i])
    left = left - #(state[12] or '')
    if left < 0 and i > 2 then state = 0 end
  end
  out[i - 1] = state
end
return out
