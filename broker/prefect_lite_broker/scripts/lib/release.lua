-- Gives one leased run back; false when it ended instead, because it was being cancelled.
local function give_back(run, token, st, descriptor, suspect, op, ttl, keep)
  if st == 'K' then
    end_cancelled(run, op, '', '', ttl, keep)
    return false
  end
  local _, q = cut(descriptor)
  call('HSET', P .. 'r:' .. run, 'st', 'R', 't', '', 'ct', token)
  push_head(lane_of(q, suspect), { run })
  wait_again(run, op)
  return true
end
