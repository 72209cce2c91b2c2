-- Judges asks by GCRA (gcra.rs), on Redis' clock.
-- KEYS: the buckets. ARGV: how many asks, then of each: whether it is forced (1 or 0), how many charges, and of each of those: the place
-- of its bucket among KEYS, quota, cost. Answers of each ask 1 or 0 for charged, and of each charge µs until the bucket is empty and µs
-- until the charge fits.
local SPAN = 60000000
local DEBT_MAX = 10 * SPAN
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local used, changed, answer, at = {}, {}, {}, 1
for i, empty_at in ipairs(redis.call('MGET', unpack(KEYS))) do
  used[i] = math.max((tonumber(empty_at) or now) - now, 0)
end

local function next()
  at = at + 1
  return tonumber(ARGV[at])
end

for _ = 1, tonumber(ARGV[1]) do
  local forced, charges, fits = next() == 1, {}, true
  for c = 1, next() do
    local bucket, quota, cost = next(), next(), next()
    local after = math.min(math.max(used[bucket] + cost * SPAN / quota, 0), DEBT_MAX)
    local wait = after > SPAN + 0.001 and after - SPAN or 0
    charges[c] = { bucket, after, wait }
    fits = fits and wait == 0
  end
  local charged = forced or fits
  answer[#answer + 1] = charged and 1 or 0
  for _, charge in ipairs(charges) do
    local bucket, after, wait = unpack(charge)
    if charged then used[bucket], changed[bucket] = after, true end
    answer[#answer + 1] = math.floor(used[bucket])
    answer[#answer + 1] = math.ceil(wait)
  end
end

for bucket in pairs(changed) do
  if used[bucket] >= 1 then
    redis.call('SET', KEYS[bucket], string.format('%.3f', now + used[bucket]), 'PX', math.ceil(used[bucket] / 1000))
  else
    redis.call('DEL', KEYS[bucket])
  end
end
return answer
