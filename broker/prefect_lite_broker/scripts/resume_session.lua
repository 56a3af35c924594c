#!lua flags=allow-oom
-- Takes a session over for another connection: whoever used it before is fenced by the epoch.
--
-- The first shard chooses the epoch, one that no resume before had; the others follow, unless a later resume
-- was there already. A shard that knows the session no more (its reaper was faster, its server lost data)
-- gets it anew while others still hold leases of it. One that is dying, with leases that the reaper has not
-- come to, lives on with those.
-- KEYS  1 prefix
-- ARGV  1 session, 2 digest of its secret, 3 epoch to set, 0 for the next one, -1 only to look, 4 lease ms,
--       5 packed info to make it anew with, '' not to, 6 with 0: an epoch that was in use somewhere
-- Returns {status, epoch, run id, token, ...}; status o ok, m a later resume was here (its epoch), u unknown
--       or not proved (0). O(held runs).
--@include base
local session, epoch = ARGV[1], tonumber(ARGV[3])
local sk, hk = P .. 's:' .. session, P .. 'h:' .. session
local s = call('HMGET', sk, 'e', 'd', 'g')
if s[2] and s[2] ~= ARGV[2] then return { 'u', 0 } end
if not s[2] and (ARGV[5] == '' or epoch < 0) then return { 'u', 0 } end
local present = tonumber(s[1] or 0)
if epoch < 0 then return { 'o', present } end
if epoch == 0 then epoch = math.max(present, tonumber(ARGV[6])) + 1 end
if epoch < present then return { 'm', present } end
local held = call('HGETALL', hk)
if not s[2] then
  call('HSET', sk, 'd', ARGV[2], 'i', ARGV[5], 'at', now)
end
if s[3] then
  call('HDEL', sk, 'g', 'u', 'uc')
  local suspects, last, worst = 0, nil, 0
  for i = 1, #held, 2 do
    local suspicion = tonumber(call('HGET', P .. 'r:' .. held[i], 'su') or 0)
    if suspicion > 0 then suspects = suspects + 1 end
    if suspicion > worst then last, worst = held[i], suspicion end
  end
  if last then call('HSET', sk, 'u', last, 'uc', suspects) end
end
call('HSET', sk, 'e', epoch, 'n', 0)
call('HDEL', sk, 'b')
call('ZADD', P .. 'sessions', now + ARGV[4], session)
local out = { 'o', epoch }
for i = 1, #held do
  out[i + 2] = held[i]
end
return out
