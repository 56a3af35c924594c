#!lua flags=allow-oom
-- Notes what has been done about dependencies; a run with nothing left to do leaves `unblock`, and one that
-- nobody needs any more lives no longer than usual.
-- KEYS  1 prefix
-- ARGV  1 record ttl ms, then per run a packed {run, children that know how it ended, children that do not
--       need it any more, parents it has let go}
-- Returns per run 1 when it has ended and more is left to do, else 0. O(children + parents).
--@include base
--@include states
local ttl, out = ARGV[1], {}
for i = 2, #ARGV do
  local run, told, gone, freed = unpack(cmsgpack.unpack(ARGV[i]))
  local rk, blocked, needed, deps = P .. 'r:' .. run, P .. 'blocked:' .. run, P .. 'needed:' .. run, P .. 'deps:' .. run
  if #told > 0 then call('SREM', blocked, unpack(told)) end
  if #gone > 0 then
    call('SREM', blocked, unpack(gone))
    call('SREM', needed, unpack(gone))
  end
  if #freed > 0 then call('HDEL', deps, unpack(freed)) end
  local v, more = call('HMGET', rk, 'st', 'op'), 0
  if not v[1] or TERMINAL[v[1]] then
    more = call('EXISTS', blocked, deps) > 0 and 1 or 0
    if more == 0 then call('ZREM', P .. 'unblock', run) end
    if call('EXISTS', needed) == 0 then
      if not v[1] then
        call('ZREM', P .. 'orphans', run)
      elseif not call('ZSCORE', P .. 'dead', run) then
        local life = v[2] and cmsgpack.unpack(v[2]).r or ttl
        call('PEXPIRE', rk, life, 'NX') -- unless it is on its way out already
        call('PEXPIRE', P .. 'b:' .. run, life, 'NX')
      end
    end
  end
  out[i - 1] = more
end
return out
