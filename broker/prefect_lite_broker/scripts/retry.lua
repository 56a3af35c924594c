#!lua flags=allow-oom
-- Puts leased runs back to run again as another attempt, now or later; one that is being cancelled ends.
-- KEYS  1 prefix
-- ARGV  1 sender of the hints or '-', 2 record ttl ms, 3 idempotency ms, then five per run:
--       run id, token, delay ms, attempt, message
-- Returns per run: status o|a|c|s, descriptor, its state when it ended else ''
-- O(runs).
--@include base
--@include states
--@include ready
--@include hints
--@include closing
--@include ending
--@include state
--@include commit
--@include history
local sender, ttl, keep = ARGV[1], ARGV[2], ARGV[3]
local out, keys, ended = {}, {}, {}
for i = 4, #ARGV, 5 do
  local run, token, after = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  local rk = P .. 'r:' .. run
  local v = call('HMGET', rk, 'st', 't', 'd', 'o', 'l', 'su', 'op', 'sm')
  local word, state = judge(rk, v[1], v[2], token), ''
  if word == 'o' then
    drop(v[4], run, v[5], v[1])
    if v[1] == 'K' then
      end_cancelled(run, v[7], '', '', ttl, keep)
      state, ended[#ended + 1] = state_of(run), run
    else
      local _, q = cut(v[3])
      local st = after > 0 and 'D' or 'R'
      call('HSET', rk, 'st', st, 't', '', 'ct', token, 'na', ARGV[i + 3], 'rm', ARGV[i + 4], 'du', now + after)
      remember(rk, v[3], v[1] == 'X' and v[8] or now, now + after) -- too short for a STARTED: it began just now
      wait_again(run, v[7])
      if after > 0 then
        call('ZADD', P .. 'delayed', now + after, run)
      else
        push(lane_of(q, v[6]), { run })
        keys[#keys + 1] = string.sub(q, 1, -3)
      end
    end
  elseif word == 'a' then
    state = state_of(run)
  end
  local n = #out
  out[n + 1], out[n + 2], out[n + 3] = word, v[3] or '', state
end
drop_all()
if sender ~= '-' then
  hint(sender, 'r', keys)
  hint(sender, 'e', ended)
end
return out
