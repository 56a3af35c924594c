-- Wake-up hints: msgpack [sender, kind, items]; a broker skips those with its own id, and an empty
-- sender is for everybody (what a service did, whose reply may get lost).
local function hint(sender, kind, items)
  if #items > 0 then call('PUBLISH', P .. 'ev', cmsgpack.pack({ sender, kind, items })) end
end
