#!lua flags=allow-oom
-- Commits terminal outcomes; the result takes the place of the body.
-- KEYS  1 prefix
-- ARGV  1 sender of the hint or '-', 2 record ttl ms, 3 idempotency ms, then four per run:
--       run id, token, outcome, result or ''; the outcome is '<state letter><run ms>' for a first attempt
--       with nothing to say, else msgpack {letter, run ms, attempt, name ('' for the usual), message,
--       what the task calls the run}
-- Returns {now ms, then per run: status o|a|c|s, descriptor, started ms, lost};
--       status O or A: o or a, and it is in `unblock`
-- O(runs): one HMGET, one HSET, one SET or UNLINK and one PEXPIRE per run, one HDEL per session.
--@include base
--@include hints
--@include closing
--@include commit
local sender, ttl, keep = ARGV[1], ARGV[2], ARGV[3]
local out, n, ended = { now }, 1, {}
for i = 4, #ARGV, 4 do
  local run, token, outcome = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local rk, bk = P .. 'r:' .. run, P .. 'b:' .. run
  local v = call('HMGET', rk, 'st', 't', 'd', 'o', 'sm', 'l', 'op', 'a')
  local word = judge(rk, v[1], v[2], token)
  local letter, rest = string.sub(outcome, 1, 1), nil
  if string.byte(outcome) > 127 then rest = cmsgpack.unpack(outcome) end
  local begun = v[5]
  -- An attempt too short for a STARTED of its own leaves the start of the one before it in the record.
  local own = (v[1] == 'X' or v[1] == 'K') and tonumber(v[8] or 1) == (rest and rest[3] or 1)
  if not begun or word == 'o' and not own then
    begun = now - (rest and rest[2] or string.sub(outcome, 2))
  end
  if word == 'o' then
    local life = ttl
    if v[7] then life = close_options(run, v[7], ttl, keep) end
    if rest then
      if rest[3] > 1 and v[1] == 'X' and not own then -- `sm` is of an attempt before, and about to be replaced
--@include history
        remember(rk, v[3], v[5])
      end
      if rest[6] and rest[6] ~= '' then call('HSET', rk, 'rn', rest[6]) end
      call('HSET', rk, 'st', rest[1], 'e', now, 'sm', begun, 'a', rest[3], 'nm', rest[4], 'ms', rest[5])
    elseif v[8] then
      call('HSET', rk, 'st', letter, 'e', now, 'sm', begun, 'a', 1)
    else
      call('HSET', rk, 'st', letter, 'e', now, 'sm', begun)
    end
    if ARGV[i + 3] == '' then
      call('UNLINK', bk)
    elseif life then
      call('SET', bk, ARGV[i + 3], 'PX', life)
    else
      call('SET', bk, ARGV[i + 3])
    end
    if life then call('PEXPIRE', rk, life) end
    if unblocks[run] then word = 'O' end
    drop(v[4], run, v[6], v[1])
    ended[#ended + 1] = run
  end
  if word == 'a' and v[7] and call('ZSCORE', P .. 'unblock', run) then word = 'A' end
  out[n + 1], out[n + 2], out[n + 3], out[n + 4] = word, v[3] or '', begun, v[6] or 0
  n = n + 4
end
drop_all()
if sender ~= '-' then hint(sender, 'e', ended) end
return out
