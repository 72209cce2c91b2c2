-- Puts lanes in order and says what they hold. Whoever is about to push or fetch looks first, whoever has pushed looks again.
-- KEYS, per lane: active, scheduled, data, meta, inflight, workers, wake. ARGV: the window, how many ids the caller is about to
-- fetch, the name of the one worker. Answers two lists, by lane: ids that wait, and newly rung ids that had no room.
local CHUNK = 1000 -- unpack() gives up at 8,000
local NEVER = 2 ^ 32 - 1 -- the score of what was rung; that of an orphan is lower
local window, most, worker = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local depths, surplus, total = {}, {}, 0

local function forget(data, meta, ids)
  if #ids == 0 then return end
  local metas = {}
  for i, id in ipairs(ids) do metas[i] = meta .. ':' .. id end
  redis.call('HDEL', data, unpack(ids))
  redis.call('UNLINK', unpack(metas))
end

-- Takes `count` ids from one end of a sorted set, a chunk at a time.
local function take(command, key, count, give)
  while count > 0 do
    local popped, ids, scores = redis.call(command, key, math.min(count, CHUNK)), {}, {}
    for i = 1, #popped, 2 do ids[#ids + 1], scores[#scores + 1] = popped[i], tonumber(popped[i + 1]) end
    give(ids, scores)
    count = count - #ids
  end
end

for lane = 1, #KEYS / 7 do
  local active, scheduled, data, meta, inflight, workers = unpack(KEYS, 7 * lane - 6, 7 * lane - 1)
  -- What was fetched is with the fetcher, or lost with it. Forgotten here it may be rung again.
  repeat
    local fetched = redis.call('SPOP', inflight, CHUNK)
    forget(data, meta, fetched)
  until #fetched < CHUNK
  -- What was rung comes in, oldest first, as long as there is room.
  local depth, rung = redis.call('LLEN', active), redis.call('ZCARD', scheduled)
  local orphans = redis.call('ZCOUNT', scheduled, '-inf', '(' .. string.format('%.0f', NEVER))
  local room = math.max(window - depth - orphans, 0)
  surplus[lane] = math.max(rung - orphans - room, 0)
  take('ZPOPMAX', scheduled, surplus[lane], function(ids) forget(data, meta, ids) end)
  take('ZPOPMIN', scheduled, rung - surplus[lane], function(ids, scores)
    local orphans, others = {}, {}
    for i, id in ipairs(ids) do
      local to = scores[i] < NEVER and orphans or others
      to[#to + 1] = id
    end
    if #orphans > 0 then redis.call('LPUSH', active, unpack(orphans)) end
    if #others > 0 then redis.call('RPUSH', active, unpack(others)) end
  end)
  depths[lane] = depth + rung - surplus[lane]
  total = total + depths[lane]
  -- Nobody fetches without being registered, and Redis may have been emptied.
  if depths[lane] > 0 then redis.call('ZADD', workers, 0, worker) end
end

-- A lane that keeps more than the caller takes has a token, which wakes one who waits. An empty lane has none.
for lane, depth in ipairs(depths) do
  local wake = KEYS[7 * lane]
  if depth == 0 then
    redis.call('DEL', wake)
  elseif total > most and redis.call('EXISTS', wake) == 0 then
    redis.call('RPUSH', wake, 1)
  end
end
return { depths, surplus }
