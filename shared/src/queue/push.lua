-- An orphan goes in before all others, full or not, also if it waits at a later place.
-- KEYS: ready and tags of every lane. ARGV: the window, then the bells: lane, level, project, task, whether it is an orphan
-- (1 + 1 + 16 + 16 + 1 bytes).
-- Answers how many ids were taken in.
local SPAN = 2 ^ 44
local window, taken = tonumber(ARGV[1]), 0
local lanes = {}

local function enter(index)
  local lane = { ready = KEYS[2 * index + 1], tags = KEYS[2 * index + 2], now = {}, next = {} }
  local depth = redis.call('ZCARD', lane.ready)
  -- An empty lane has no history. Nor has one that saw more projects than two windows: their fairness starts anew.
  lane.room, lane.empty = window - depth, depth == 0
  if lane.empty or redis.call('HLEN', lane.tags) > 2 * window + 200 then redis.call('DEL', lane.tags) end
  return lane
end

-- The level's virtual time: that of the last id popped, or of the oldest that waits if that is later.
local function clock(lane, level, base)
  if lane.empty then return 0 end
  local now = tonumber(redis.call('HGET', lane.tags, level) or 0)
  local head = redis.call('ZRANGEBYSCORE', lane.ready, base, base + SPAN - 1, 'WITHSCORES', 'LIMIT', 0, 1)
  return head[2] and math.max(now, tonumber(head[2]) - base) or now
end

for i = 2, #ARGV do
  local bell = ARGV[i]
  local index, rank = string.byte(bell, 1, 2)
  local lane = lanes[index]
  if not lane then
    lane = enter(index)
    lanes[index] = lane
  end
  local orphan = string.byte(bell, 35) == 1
  if orphan or lane.room > 0 then
    local base, level, who = rank * SPAN, string.sub(bell, 2, 2), string.sub(bell, 2, 18)
    local tag = lane.next[who]
    if orphan or not tag then lane.now[level] = lane.now[level] or clock(lane, level, base) end
    if orphan then
      tag = lane.now[level]
    elseif not tag then
      local kept = not lane.empty and redis.call('HGET', lane.tags, who)
      tag = math.max(lane.now[level], tonumber(kept or 0))
    end
    if redis.call('ZADD', lane.ready, orphan and 'LT' or 'NX', base + tag, string.sub(bell, 19, 34)) == 1 then
      if not orphan then lane.next[who] = tag + 1 end
      lane.room = lane.room - 1
      taken = taken + 1
    end
  end
end

for _, lane in pairs(lanes) do
  for who, tag in pairs(lane.next) do redis.call('HSET', lane.tags, who, tag) end
end
return taken
