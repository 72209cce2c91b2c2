-- KEYS: ready and tags of the lanes asked for. ARGV: most ids, the cycle of turns (a byte each: place of the lane among those
-- asked for, from 1, or 0), the turn that is next. Answers the turn after the last one served, and the ids.
local SPAN = 2 ^ 44
local left, turns, at = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local have, give, total = {}, {}, 0
for lane = 1, #KEYS / 2 do
  have[lane] = redis.call('ZCARD', KEYS[2 * lane - 1])
  give[lane] = 0
  total = total + have[lane]
end

left = math.min(left, total)
while left > 0 do
  local lane = string.byte(turns, at % #turns + 1)
  at = (at + 1) % #turns
  if lane > 0 and give[lane] < have[lane] then
    give[lane] = give[lane] + 1
    left = left - 1
  end
end

local ids = {}
for lane = 1, #KEYS / 2 do
  if give[lane] > 0 then
    local popped, now = redis.call('ZPOPMIN', KEYS[2 * lane - 1], give[lane]), {}
    for i = 1, #popped, 2 do
      ids[#ids + 1] = popped[i]
      local rank = math.floor(popped[i + 1] / SPAN)
      now[rank] = popped[i + 1] - rank * SPAN
    end
    if give[lane] == have[lane] then
      redis.call('DEL', KEYS[2 * lane])
    else
      for rank, tag in pairs(now) do redis.call('HSET', KEYS[2 * lane], string.char(rank), tag) end
    end
  end
end
return { at, ids }
