-- Earlier attempts of a run, in its field `hi`: words that end in ';', times in ms since its submit.
--   X<started>         an attempt
--   A<asked>,<due>     a RETRY after it
-- Only runs with a second attempt have any; the last HISTORY characters are kept, some 50 attempts.
local HISTORY = 1000

-- `d` is the descriptor, `began` the start of the attempt before this moment.
local function remember(rk, d, began, due)
  local submitted = tonumber((cut(d)))
  local words = call('HGET', rk, 'hi') or ''
  if began then words = words .. string.format('X%d;', began - submitted) end
  if due then words = words .. string.format('A%d,%d;', now - submitted, due - submitted) end
  if #words > HISTORY then words = string.match(string.sub(words, -HISTORY), ';(.*)$') end
  call('HSET', rk, 'hi', words)
end
