#!lua flags=allow-oom
-- Cancels runs: a waiting one ends at once, a leased one is asked to stop.
-- KEYS  1 prefix
-- ARGV  1 sender of the hints or '-', 2 record ttl ms, 3 idempotency ms, then run ids
-- Returns per run: {status, session, token, state or ''}; status
--       k cancelled (now or before), K cancelling, a ended otherwise, u unknown
-- Ids of cancelled runs stay in their ready list; a claim skips them. O(runs).
--@include base
--@include states
--@include hints
--@include closing
--@include ending
--@include state
local sender, ttl, keep = ARGV[1], ARGV[2], ARGV[3]
local out, ended = {}, {}
for i = 4, #ARGV do
  local run = ARGV[i]
  local rk = P .. 'r:' .. run
  local v = call('HMGET', rk, 'st', 'o', 't', 'op')
  local st, answer = v[1], nil
  if not st then
    answer = { 'u', '', '', '' }
  elseif st == 'k' then
    answer = { 'k', '', '', state_of(run) }
  elseif TERMINAL[st] then
    answer = { 'a', '', '', state_of(run) }
  elseif LEASED[st] then
    if st ~= 'K' then
      call('HSET', rk, 'st', 'K')
      call('HSET', P .. 'c:' .. v[2], run, v[3]) -- a renewal reads it, should the hint get lost
    end
    if sender ~= '-' then hint(sender, 'c', { v[2], run, v[3] }) end
    answer = { 'K', v[2], v[3], '' }
  else
    if st == 'D' then call('ZREM', P .. 'delayed', run) end
    end_cancelled(run, v[4], '', '', ttl, keep)
    ended[#ended + 1] = run
    answer = { 'k', '', '', state_of(run) }
  end
  out[i - 3] = answer
end
if sender ~= '-' then hint(sender, 'e', ended) end
return out
