-- The fence that FINISH, RETRY and RELEASE share: a commit counts only under the token of the lease that
-- is in force; the token of the last commit answers 'a' (it ended the run) or 'c' (it did not), and nothing
-- changes.
local function judge(rk, st, held, token)
  if held == token then
    if st == 'L' or st == 'X' or st == 'K' then return 'o' end
    if st == 'c' or st == 'f' or st == 'h' or st == 'k' then return 'a' end -- ended under this token
  end
  if st and call('HGET', rk, 'ct') == token then return 'c' end
  return 's'
end

local dropped = {} -- session -> runs it no longer holds
local function drop(session, run, lost, st)
  local runs = dropped[session]
  if not runs then
    runs = {}
    dropped[session] = runs
  end
  runs[#runs + 1] = run
  if lost and call('HGET', P .. 'r:' .. run, 'su') then
    local sk = P .. 's:' .. session
    if call('HGET', sk, 'u') == run then call('HDEL', sk, 'u') end
    call('HINCRBY', sk, 'uc', -1)
  end
  if st == 'K' then call('HDEL', P .. 'c:' .. session, run) end
end

local function drop_all()
  for session, runs in pairs(dropped) do
    call('HDEL', P .. 'h:' .. session, unpack(runs))
  end
end
