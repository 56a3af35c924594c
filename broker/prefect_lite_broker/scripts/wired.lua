#!lua flags=allow-oom
-- Notes that blocked runs are registered with all they wait for; they are looked at again much later.
-- KEYS  1 prefix
-- ARGV  1 ms until then, then run ids
-- Returns nothing. O(runs).
--@include base
for i = 2, #ARGV do
  call('ZADD', P .. 'blocked', 'XX', now + ARGV[1], ARGV[i])
end
return 1
