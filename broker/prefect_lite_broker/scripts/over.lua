#!lua flags=no-writes
-- Which of some runs have ended.
-- KEYS  1 prefix
-- ARGV  run ids
-- Returns the ids of those that have; one without a record is not among them. O(runs), one HGET each.
--@include base
--@include states
local out = {}
for _, run in ipairs(ARGV) do
  if TERMINAL[call('HGET', P .. 'r:' .. run, 'st')] then out[#out + 1] = run end
end
return out
