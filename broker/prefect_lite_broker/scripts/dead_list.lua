#!lua flags=no-writes
-- The newest dead runs.
-- KEYS  1 prefix
-- ARGV  1 how many
-- Returns per run: id, state. O(runs).
--@include base
--@include states
--@include state
local out = {}
for _, run in ipairs(call('ZRANGE', P .. 'dead', 0, ARGV[1] - 1, 'REV')) do
  out[#out + 1] = run
  out[#out + 1] = state_of(run)
end
return out
