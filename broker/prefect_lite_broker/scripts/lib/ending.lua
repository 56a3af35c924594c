-- What every end of a run has in common. `op` is the packed map of rare options, or false.
-- Returns how long the record is to live, in ms.
local function close_options(run, op, ttl, keep)
  if op then
    local o = cmsgpack.unpack(op)
    if o.x then call('ZREM', P .. 'expires', run) end
    if o.i then call('PEXPIRE', P .. 'idem:' .. o.i, keep) end
    if o.r then
      call('PEXPIRE', P .. 'log:' .. run, o.r)
      return o.r
    end
  end
  return ttl
end

-- Ends a run as CANCELLED; nothing is left to execute, so its body goes.
local function end_cancelled(run, op, name, message, ttl, keep)
  local rk = P .. 'r:' .. run
  ttl = close_options(run, op, ttl, keep)
  call('HSET', rk, 'st', 'k', 'e', now, 'nm', name, 'ms', message)
  call('UNLINK', P .. 'b:' .. run)
  call('PEXPIRE', rk, ttl)
end
