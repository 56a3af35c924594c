-- Takes the body of a run that left the dead set; its record stays for the usual time, or for who needs it,
-- and no longer offers a replay.
local function bury(run, ttl)
  local message = call('HGET', P .. 'r:' .. run, 'ms')
  local offer = message and string.find(message, '; `prefect-lite dead replay', 1, true)
  if offer then call('HSET', P .. 'r:' .. run, 'ms', string.sub(message, 1, offer - 1)) end
  call('UNLINK', P .. 'b:' .. run)
  if call('EXISTS', P .. 'needed:' .. run) == 0 then call('PEXPIRE', P .. 'r:' .. run, ttl) end
end
