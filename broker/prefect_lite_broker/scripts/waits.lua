#!lua flags=no-writes
-- What blocked runs wait for.
-- KEYS  1 prefix
-- ARGV  1 how much to tell: 'all', or 'times' only, then run ids
-- Returns per run {submitted ms, what it waits for ...}; {} for one that is not blocked. O(runs + parents told).
--@include base
local out = {}
for i = 2, #ARGV do
  local run = ARGV[i]
  local v, answer = call('HMGET', P .. 'r:' .. run, 'st', 'd'), {}
  if v[1] == 'B' then
    answer[1] = tonumber((cut(v[2])))
    local deps = ARGV[1] == 'all' and call('HGETALL', P .. 'deps:' .. run) or {}
    for j = 1, #deps, 2 do
      if deps[j + 1] ~= '' then answer[#answer + 1] = deps[j] end
    end
  end
  out[i - 1] = answer
end
return out
