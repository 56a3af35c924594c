#!lua flags=allow-oom
-- Gives leased runs back unharmed, to the head of their queue; one that is being cancelled ends.
-- KEYS  1 prefix
-- ARGV  1 sender of the hints or '-', 2 record ttl ms, 3 idempotency ms, then two per run: run id, token
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
--@include release
local sender, ttl, keep = ARGV[1], ARGV[2], ARGV[3]
local out, keys, ended = {}, {}, {}
for i = 4, #ARGV, 2 do
  local run, token = ARGV[i], ARGV[i + 1]
  local rk = P .. 'r:' .. run
  local v = call('HMGET', rk, 'st', 't', 'd', 'o', 'l', 'su', 'op')
  local word, state = judge(rk, v[1], v[2], token), ''
  if word == 'o' then
    drop(v[4], run, v[5], v[1])
    if give_back(run, token, v[1], v[3], v[6], v[7], ttl, keep) then
      local _, q = cut(v[3])
      keys[#keys + 1] = string.sub(q, 1, -3)
    else
      state, ended[#ended + 1] = state_of(run), run
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
