-- Commits terminal outcomes; the result takes the place of the body.
-- KEYS  1 prefix
-- ARGV  1 sender of the hint or '-', 2 record ttl ms, 3 idempotency ms, then eight per run:
--       run id, token, state letter, attempt, run ms, name ('' for the usual), message, result or ''
-- Returns {now ms, then per run: status o|a|c|s, descriptor, started ms, lost}
-- O(runs): one HMGET, one HSET, one SET or UNLINK and one PEXPIRE per run, one HDEL per session.
--@include base
--@include hints
--@include ending
--@include commit
local sender, ttl, keep = ARGV[1], ARGV[2], ARGV[3]
local out, n, ended = { now }, 1, {}
for i = 4, #ARGV, 8 do
  local run, token = ARGV[i], ARGV[i + 1]
  local rk, bk = P .. 'r:' .. run, P .. 'b:' .. run
  local v = call('HMGET', rk, 'st', 't', 'd', 'o', 'sm', 'l', 'op', 'a')
  local word = judge(rk, v[1], v[2], token)
  local begun = v[5] or now - ARGV[i + 4]
  if word == 'o' then
    local life = v[7] and close_options(run, v[7], ttl, keep) or ttl
    if ARGV[i + 3] == '1' and not v[8] and ARGV[i + 5] == '' and ARGV[i + 6] == '' then
      call('HSET', rk, 'st', ARGV[i + 2], 'e', now, 'sm', begun)
    else
      local name, message = ARGV[i + 5], ARGV[i + 6]
      call('HSET', rk, 'st', ARGV[i + 2], 'e', now, 'sm', begun, 'a', ARGV[i + 3], 'nm', name, 'ms', message)
    end
    if ARGV[i + 7] ~= '' then
      call('SET', bk, ARGV[i + 7], 'PX', life)
    else
      call('UNLINK', bk)
    end
    call('PEXPIRE', rk, life)
    drop(v[4], run, v[6], v[1])
    ended[#ended + 1] = run
  end
  out[n + 1], out[n + 2], out[n + 3], out[n + 4] = word, v[3] or '', begun, v[6] or 0
  n = n + 4
end
drop_all()
if sender ~= '-' then hint(sender, 'e', ended) end
return out
