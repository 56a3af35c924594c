-- Wake-up hints: msgpack [sender, kind, items]; a broker skips those with its own id, and an empty
-- sender is for everybody (what a service did, whose reply may get lost). Sharded, so that in a cluster a
-- hint stays on the node of its shard; on a server that is alone it is the same as PUBLISH.
local function hint(sender, kind, items)
  if #items > 0 then call('SPUBLISH', P .. 'ev', cmsgpack.pack({ sender, kind, items })) end
end
