#!lua
-- Records one run of an asset, or that it was read. Only the newest runs are kept, and the assets heard of last.
-- KEYS  1 prefix
-- ARGV  1 asset key, 2 properties ('' leaves those known), 3 run id ('': it was read), 4 'made' or 'failed',
--       5 what is said of the run, 6 runs kept, 7 assets kept in this shard, 8 the run's record
-- Returns nothing. A repeat changes nothing; the same run with another record (it was executed again) takes
-- the place of the first. O(log runs + log assets).
--@include base
local key, run = ARGV[1], ARGV[3]
local asset = P .. 'asset:' .. key
if ARGV[2] ~= '' then call('HSET', asset, 'p', ARGV[2]) end
if run == '' then
  call('HSET', asset, 'r', now)
else
  local runs, at = P .. 'asset_runs:' .. key, P .. 'asset_at:' .. key
  local before = call('HGET', runs, run)
  if before ~= ARGV[8] then
    call('HSET', runs, run, ARGV[8])
    call('ZADD', at, now, run)
    if not before then call('HINCRBY', asset, 'n', 1) end
    call('HSET', asset, ARGV[4] == 'made' and 'm' or 'f', now, 'l', run, 'o', ARGV[4], 'h', ARGV[5])
    if call('ZCARD', at) > tonumber(ARGV[6]) then call('HDEL', runs, call('ZPOPMIN', at)[1]) end
  end
end
call('ZADD', P .. 'assets', 0, key)
call('ZADD', P .. 'assets_at', now, key)
if call('ZCARD', P .. 'assets_at') > tonumber(ARGV[7]) then
  local oldest = call('ZPOPMIN', P .. 'assets_at')[1]
  call('ZREM', P .. 'assets', oldest)
  call('UNLINK', P .. 'asset:' .. oldest, P .. 'asset_runs:' .. oldest, P .. 'asset_at:' .. oldest)
end
return 1
