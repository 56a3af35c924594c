#!lua flags=allow-oom
-- Marks leased runs as running; a stale token is ignored.
-- KEYS  1 prefix
-- ARGV  three per run: run id, token, attempt
-- Returns nothing. O(runs).
--@include base
for i = 1, #ARGV, 3 do
  local rk = P .. 'r:' .. ARGV[i]
  local v = call('HMGET', rk, 'st', 't')
  if v[2] == ARGV[i + 1] and v[2] ~= '' then
    local st = v[1]
    if st == 'L' or st == 'X' then
      if ARGV[i + 2] == '1' then -- an absent attempt reads as 1 once there is a start
        call('HSET', rk, 'st', 'X', 'sm', now)
      else
        local before = call('HMGET', rk, 'd', 'a', 'sm')
        if st == 'X' and (before[2] or '1') ~= ARGV[i + 2] then -- it runs on in place: nobody sent a RETRY
--@include history
          remember(rk, before[1], before[3])
        end
        call('HSET', rk, 'st', 'X', 'sm', now, 'a', ARGV[i + 2])
      end
    elseif st == 'K' then
      call('HSET', rk, 'sm', now, 'a', ARGV[i + 2])
    end
  end
end
return 1
