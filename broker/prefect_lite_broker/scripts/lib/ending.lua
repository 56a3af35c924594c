-- Ends a run as CANCELLED; nothing is left to execute, so its body goes.
local function end_cancelled(run, op, name, message, ttl, keep)
  local rk = P .. 'r:' .. run
  local life = close_options(run, op, ttl, keep)
  call('HSET', rk, 'st', 'k', 'e', now, 'nm', name, 'ms', message)
  call('UNLINK', P .. 'b:' .. run)
  if life then call('PEXPIRE', rk, life) end
end
