#!lua flags=allow-oom
-- What is left to do for runs that have ended: children to be told, and parents to be let go.
-- KEYS  1 prefix
-- ARGV  1 children and parents at most in all, then run ids
-- Returns per run {how it ended as watch_parent says it, number of parents, parents ..., children ...}; more
--       may be left than is returned. {} for one that has not ended: it leaves `unblock`.
-- O(runs + what is returned).
--@include base
--@include states
--@include dependents
local left, out = tonumber(ARGV[1]), {}
for i = 2, #ARGV do
  local run = ARGV[i]
  local v = call('HMGET', P .. 'r:' .. run, 'st', 'nm', 'op')
  local outcome, answer = outcome_of(v[1], v[2]), {}
  -- It may have been given up as unknown, and then submitted: nobody has marked it.
  if v[1] and call('EXISTS', P .. 'needed:' .. run) == 1 then
    mark(run, v[3])
    if outcome ~= '' then keep_result(run) end
  end
  if outcome == '' then
    call('ZREM', P .. 'unblock', run)
  else
    local parents = left > 0 and call('HRANDFIELD', P .. 'deps:' .. run, left) or {}
    left = left - #parents
    local children = left > 0 and call('SRANDMEMBER', P .. 'blocked:' .. run, left) or {}
    left = left - #children
    answer = { outcome, #parents }
    for _, parent in ipairs(parents) do
      answer[#answer + 1] = parent
    end
    for _, child in ipairs(children) do
      answer[#answer + 1] = child
    end
  end
  out[i - 1] = answer
end
return out
