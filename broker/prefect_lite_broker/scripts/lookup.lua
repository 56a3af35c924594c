-- Reads runs.
-- KEYS  1 prefix
-- ARGV  run ids
-- Returns per run what lib/state.lua says. O(runs).
--@include base
--@include state
local out = {}
for i, run in ipairs(ARGV) do
  out[i] = state_of(run)
end
return out
