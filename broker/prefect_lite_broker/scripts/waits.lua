#!lua flags=no-writes
-- What blocked runs wait for.
-- KEYS  1 prefix
-- ARGV  run ids
-- Returns per run {submitted ms, what it waits for ...}; {} for one that is not blocked. O(parents).
--@include base
local out = {}
for i, run in ipairs(ARGV) do
  local v, answer = call('HMGET', P .. 'r:' .. run, 'st', 'd'), {}
  if v[1] == 'B' then
    answer[1] = tonumber((cut(v[2])))
    local deps = call('HGETALL', P .. 'deps:' .. run)
    for j = 1, #deps, 2 do
      if deps[j + 1] ~= '' then answer[#answer + 1] = deps[j] end
    end
  end
  out[i] = answer
end
return out
